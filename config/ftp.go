package config

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// RequireTLS says what is refused in clear: a boolean in the file, and with ftp a
// word, because there the data have connections of their own.
type RequireTLS string

const (
	TLSOptional   RequireTLS = "false"
	TLSRequired   RequireTLS = "true"
	TLSForControl RequireTLS = "control" // ftp: for the login; data may be in clear
	TLSForData    RequireTLS = "data"    // ftp: for the login, and for data connections (PROT P)
	TLSOff        RequireTLS = "off"     // ftp: for neither, and passwords may be in clear
)

// Required is for the protocols that have a boolean.
func (r RequireTLS) Required() bool { return r == TLSRequired }

// MarshalYAML writes a boolean as one. Other readers of YAML take off for one too,
// hence the quotes.
func (r RequireTLS) MarshalYAML() ([]byte, error) {
	if r == TLSOff {
		return []byte(strconv.Quote(string(r))), nil
	}
	return []byte(r), nil
}

// DataSession says how it is known that a data connection in TLS is the client's.
type DataSession string

const (
	ResumeControl DataSession = "resume"  // it resumes the TLS session of the control connection
	SameAddress   DataSession = "address" // it comes from the client's address
)

// Passive says where a client's data connections come in.
type Passive struct {
	Ports   Ports  `yaml:"ports"`             // any, LOW-HIGH or one port; default any
	Address string `yaml:"address,omitempty"` // IPv4, told in reply to PASV; default: the one that the client has reached
}

// Ports are any, a port, or LOW-HIGH.
type Ports string

const anyPort Ports = "any"

// Range is the first and the last port; 0 and 0 for any.
func (p *Passive) Range() (low, high uint16) {
	low, high, _ = p.Ports.parse() // checked by Check
	return low, high
}

// Addr is Address; the zero Addr if there is none.
func (p *Passive) Addr() netip.Addr {
	a, _ := netip.ParseAddr(p.Address) // checked by Check
	return a
}

func (p Ports) parse() (low, high uint16, err error) {
	if p == anyPort {
		return 0, 0, nil
	}
	first, last, ok := strings.Cut(string(p), "-")
	if !ok {
		last = first
	}
	lo, loErr := strconv.ParseUint(first, 10, 16)
	hi, hiErr := strconv.ParseUint(last, 10, 16)
	switch {
	case p == "":
		return 0, 0, errors.New("missing; write for instance 50000-50100, or any")
	case loErr != nil || hiErr != nil || lo == 0 || hi == 0:
		return 0, 0, fmt.Errorf("%q is not a range of ports from 1 to 65535; write for instance 50000-50100, or any", p)
	case lo > hi:
		return 0, 0, fmt.Errorf("%q ends before it begins; write %d-%d", p, hi, lo)
	}
	return uint16(lo), uint16(hi), nil
}

func (p *Passive) check() error {
	if _, _, err := p.Ports.parse(); err != nil {
		return under("ports", err)
	}
	a, err := netip.ParseAddr(p.Address)
	if p.Address != "" && (err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast()) {
		return &keyError{"address", fmt.Sprintf("%q is not an IPv4 address that clients can connect to; write for instance 203.0.113.7, or remove it", p.Address)}
	}
	return nil
}

// inheritFTP fills in what depends on the protocol and is not in the file.
func (c *Config) inheritFTP(l *Listener, path string) {
	absent := func(key string) bool { return c.src.nodes[path+key] == nil }
	ftp := l.Protocol == "ftp"
	switch {
	case absent(".require_tls") && ftp:
		l.RequireTLS = TLSForData
	case absent(".require_tls"):
		l.RequireTLS = TLSOptional
	}
	if ftp && absent(".passive.ports") {
		l.Passive.Ports = anyPort
	}
	if ftp && absent(".data_session") {
		l.DataSession = ResumeControl
	}
}

func (l *Listener) checkRequireTLS() error {
	known := []RequireTLS{TLSRequired, TLSOptional}
	if l.Protocol == "ftp" {
		known = []RequireTLS{TLSForControl, TLSForData, TLSOff}
	}
	if l.RequireTLS != "" && !slices.Contains(known, l.RequireTLS) {
		return &keyError{"require_tls", fmt.Sprintf("%s is not for %s; use %s", l.RequireTLS, l.Protocol, list(known))}
	}
	return oneOf("require_tls", l.RequireTLS, known...)
}

func (l *Listener) checkFTP() error {
	if l.Protocol == "ftp" {
		return cmp.Or(
			under("passive", l.Passive.check()),
			oneOf("data_session", l.DataSession, ResumeControl, SameAddress),
		)
	}
	for _, k := range []struct {
		key   string
		given bool
	}{{"passive", l.Passive != Passive{}}, {"active", l.Active}, {"data_session", l.DataSession != ""}} {
		if k.given {
			return &keyError{k.key, fmt.Sprintf("is for ftp, not for %s; remove it", l.Protocol)}
		}
	}
	return nil
}

func decodeRequireTLS(node ast.Node, v reflect.Value) error {
	switch n := node.(type) {
	case *ast.BoolNode:
		v.SetString(strconv.FormatBool(n.Value))
		return nil
	case *ast.StringNode:
		if word := RequireTLS(n.Value); word == TLSForControl || word == TLSForData || word == TLSOff {
			v.SetString(n.Value)
			return nil
		}
	}
	return fmt.Errorf("want %s, or for ftp control, data or off", truth(node))
}

func decodePorts(node ast.Node, v reflect.Value) error {
	if n, ok := node.(*ast.StringNode); ok {
		v.SetString(n.Value)
		return nil
	}
	n, err := wholeNumber(node)
	if err != nil {
		return errors.New("want ports, for instance 50000-50100, or any")
	}
	v.SetString(strconv.FormatInt(n, 10))
	return nil
}
