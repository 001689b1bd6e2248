package imap

import (
	"bytes"
	"slices"
	"strings"

	"starttlsd/codec"
)

// passes reports whether a backend's capability is one of ours as well: not what is
// about TLS, which ends here; not compression, which would hide the dialogue; not the
// way back before login, where nobody would filter any more; and no SASL mechanism
// that does not work through us.
func passes(word string) bool {
	word = codec.Upper(word)
	if mechanism, ok := strings.CutPrefix(word, "AUTH="); ok {
		return codec.PassesSASL([]byte(mechanism))
	}
	return word != "STARTTLS" && word != "UNAUTHENTICATE" && word != "LOGINDISABLED" && !strings.HasPrefix(word, "COMPRESS=")
}

func pass(words []string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(word string) bool { return !passes(word) })
}

// filter is a reply of the backend's with the capabilities in it that pass, whether
// they are the reply or a response code. It may be line itself.
func filter(line []byte) []byte {
	if text, ok := cutWord(string(line[min(2, len(line)):]), "CAPABILITY"); ok && bytes.HasPrefix(line, []byte("* ")) {
		return appendWords([]byte("* CAPABILITY "), pass(strings.Fields(text)))
	}
	before, inside, after, ok := code(line)
	if !ok {
		return line
	}
	out := append(slices.Clone(before), "[CAPABILITY "...)
	return append(appendWords(out, pass(strings.Fields(string(inside)))), after...)
}

// code finds the response code CAPABILITY: line is before, "[CAPABILITY ", inside,
// after. A response code is the first in brackets (RFC 9051 §7.1).
func code(line []byte) (before, inside, after []byte, ok bool) {
	const name = "[CAPABILITY "
	i := bytes.IndexByte(line, '[')
	if i < 0 || len(line) < i+len(name) || !codec.Is(line[i:i+len(name)], name) {
		return nil, nil, nil, false
	}
	j := bytes.IndexByte(line[i:], ']')
	if j < 0 {
		return nil, nil, nil, false
	}
	return line[:i], line[i+len(name) : i+j], line[i+j:], true
}

func appendWords(out []byte, words []string) []byte {
	return append(out, strings.Join(words, " ")...)
}

// hasWord reports whether text begins with word, without regard to case.
func hasWord(text []byte, word string) bool {
	_, ok := cutWord(string(text), word)
	return ok
}

// cutWord is text behind the word that it begins with.
func cutWord(text, word string) (rest string, ok bool) {
	first, rest, _ := strings.Cut(text, " ")
	return rest, codec.Is(first, word)
}

func has(words []string, word string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return codec.Is(w, word) })
}
