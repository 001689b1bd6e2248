package config

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// source is the file a configuration was read from. It decodes the tree that
// goccy/go-yaml parses: yaml.Unmarshal, even strict, would take a bare number
// for a duration and speaks of Go types, where an operator needs the path and
// the keys there are.
type source struct {
	file  string
	nodes map[string]ast.Node // values by path, such as listeners[0].limits.handshake
}

// keyError is what is wrong with the value at a path.
type keyError struct{ path, problem string }

func (e *keyError) Error() string {
	if e.path == "" {
		return e.problem
	}
	return e.path + ": " + e.problem
}

// parse returns the root of the document, or nil if there is nothing in it.
func (s *source) parse(file string, data []byte) (ast.Node, error) {
	s.file, s.nodes = file, make(map[string]ast.Node)
	tree, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey()) // decodeBlock refuses them
	if e, ok := errors.AsType[yaml.Error](err); ok {
		problem := strings.NewReplacer("\n", " ", "\t", `\t`).Replace(e.GetMessage())
		return nil, s.at(e.GetToken(), "%s; indent with spaces, and quote values such as \"[::]:25\"", problem)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	switch len(tree.Docs) {
	case 0:
		return nil, nil
	case 1:
		return tree.Docs[0].Body, nil
	default:
		return nil, s.at(tree.Docs[1].Start, "a second YAML document begins; put everything into one")
	}
}

// at is an error that points at tok.
func (s *source) at(tok *token.Token, format string, args ...any) error {
	problem := fmt.Sprintf(format, args...)
	if tok == nil {
		return fmt.Errorf("%s: %s", s.file, problem)
	}
	return fmt.Errorf("%s:%d:%d: %s", s.file, tok.Position.Line, tok.Position.Column, problem)
}

// locate puts the file and the position of the value, or of the nearest block
// around it, in front of a keyError.
func (s *source) locate(e *keyError) error {
	path := e.path
	for path != "" && s.nodes[path] == nil {
		path = path[:max(0, strings.LastIndexAny(path, ".["))]
	}
	return s.at(start(s.nodes[path]), "%s", e)
}

// start is the first token of a value.
func start(node ast.Node) *token.Token {
	if node == nil {
		return nil
	}
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return m.Values[0].Key.GetToken()
	}
	return node.GetToken()
}

// decode sets v, which holds the defaults, to what node says.
func (s *source) decode(node ast.Node, path string, v reflect.Value) error {
	s.nodes[path] = node
	switch node.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode:
		return s.locate(&keyError{path, "anchors, aliases and tags are not supported; write the value out"})
	}
	switch v.Kind() {
	case reflect.Struct:
		return s.decodeBlock(node, path, v)
	case reflect.Slice:
		return s.decodeList(node, path, v)
	}
	if err := decodeScalar(node, v); err != nil {
		return s.locate(&keyError{path, err.Error()})
	}
	return nil
}

func (s *source) decodeBlock(node ast.Node, path string, v reflect.Value) error {
	if node.Type() == ast.NullType { // all its keys are commented out
		return nil
	}
	block, ok := node.(*ast.MappingNode)
	if !ok {
		return s.locate(&keyError{path, "a block of keys is wanted here: " + strings.Join(keys(v.Type()), ", ")})
	}
	seen := make(map[string]int) // key to line
	for _, entry := range block.Values {
		key := entry.Key.GetToken()
		if line, ok := seen[key.Value]; ok {
			return s.at(key, "key %q is already in line %d; keep one of them", key.Value, line)
		}
		seen[key.Value] = key.Position.Line
		field, ok := fieldFor(v.Type(), key.Value)
		if !ok {
			return s.unknownKey(key, path, v.Type())
		}
		if err := s.decode(entry.Value, join(path, key.Value), v.FieldByIndex(field.Index)); err != nil {
			return err
		}
	}
	return nil
}

func (s *source) unknownKey(key *token.Token, path string, block reflect.Type) error {
	if _, ok := fieldFor(reflect.TypeFor[ProcessLimits](), key.Value); ok && block == reflect.TypeFor[SessionLimits]() {
		return s.at(key, "%s holds for the whole process; move it from %s to the global limits", key.Value, path)
	}
	in := ""
	if path != "" {
		in = " in " + path
	}
	return s.at(key, "unknown key %q%s; known keys: %s", key.Value, in, strings.Join(keys(block), ", "))
}

func (s *source) decodeList(node ast.Node, path string, v reflect.Value) error {
	if node.Type() == ast.NullType {
		return nil
	}
	list, ok := node.(*ast.SequenceNode)
	if !ok {
		return s.locate(&keyError{path, `a list is wanted here: begin each item with "- "`})
	}
	for i, item := range list.Values {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if err := s.decode(item, fmt.Sprintf("%s[%d]", path, i), v.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

var (
	durationType   = reflect.TypeFor[time.Duration]()
	sizeType       = reflect.TypeFor[Size]()
	requireTLSType = reflect.TypeFor[RequireTLS]()
	portsType      = reflect.TypeFor[Ports]()
)

func decodeScalar(node ast.Node, v reflect.Value) error {
	switch {
	case node.Type() == ast.NullType:
		return errors.New("no value; give one or remove the line")
	case v.Type() == durationType:
		return decodeDuration(node, v)
	case v.Type() == sizeType:
		return decodeSize(node, v)
	case v.Type() == requireTLSType:
		return decodeRequireTLS(node, v)
	case v.Type() == portsType:
		return decodePorts(node, v)
	case v.Kind() == reflect.Bool:
		n, ok := node.(*ast.BoolNode)
		if !ok {
			return fmt.Errorf("want %s", truth(node))
		}
		v.SetBool(n.Value)
	case v.Kind() == reflect.Int:
		n, err := wholeNumber(node)
		if err != nil {
			return err
		}
		if v.OverflowInt(n) {
			return fmt.Errorf("%d is too large", n)
		}
		v.SetInt(n)
	default:
		n, ok := node.(*ast.StringNode)
		if !ok {
			return errors.New("want a text; quote what YAML takes for a number or a list")
		}
		if strings.ContainsFunc(n.Value, unicode.IsControl) || strings.Contains(n.Value, "\uFFFD") {
			return fmt.Errorf("%q holds a control character or is not UTF-8", n.Value)
		}
		v.SetString(n.Value)
	}
	return nil
}

func decodeDuration(node ast.Node, v reflect.Value) error {
	text, ok := node.(*ast.StringNode)
	if !ok {
		return errors.New("want a duration with its unit, for instance 10s or 1m30s")
	}
	d, err := parseDuration(text.Value)
	v.SetInt(int64(d))
	return err
}

func decodeSize(node ast.Node, v reflect.Value) error {
	text, ok := node.(*ast.StringNode)
	if !ok {
		n, err := wholeNumber(node)
		v.SetInt(n)
		return err
	}
	n, err := parseSize(text.Value)
	v.SetInt(int64(n))
	return err
}

// truth is what is wanted in place of node. YAML 1.1 took yes and its like for booleans
// as well.
func truth(node ast.Node) string {
	n, _ := node.(*ast.StringNode)
	switch {
	case n == nil || n.Token.Type != token.StringType:
	case slices.Contains([]string{"yes", "on", "y"}, strings.ToLower(n.Value)):
		return "true, not " + n.Value
	case slices.Contains([]string{"no", "off", "n"}, strings.ToLower(n.Value)):
		return "false, not " + n.Value
	}
	return "true or false, without quotes"
}

func wholeNumber(node ast.Node) (int64, error) {
	n, ok := node.(*ast.IntegerNode)
	if !ok {
		return 0, errors.New("want a whole number, without quotes")
	}
	switch n := n.Value.(type) {
	case int64:
		return n, nil
	case uint64:
		if n <= math.MaxInt64 {
			return int64(n), nil
		}
	}
	return 0, fmt.Errorf("%s is too large", node.GetToken().Value)
}

// fields are those of a block with those of its inlined blocks.
func fields(block reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(block), func(f reflect.StructField) bool {
		return f.Anonymous || !f.IsExported()
	})
}

func fieldFor(block reflect.Type, key string) (reflect.StructField, bool) {
	all := fields(block)
	i := slices.IndexFunc(all, func(f reflect.StructField) bool { return keyOf(f) == key })
	if i < 0 {
		return reflect.StructField{}, false
	}
	return all[i], true
}

func keys(block reflect.Type) []string {
	var names []string
	for _, f := range fields(block) {
		names = append(names, keyOf(f))
	}
	return names
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	return name
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
