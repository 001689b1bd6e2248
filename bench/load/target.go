package load

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
)

// Target is the server's address and protocol. ParseTarget makes it.
type Target struct {
	Host     string // name or IP address
	Port     string
	Implicit bool // TLS from the first byte

	protocol *protocol
}

// ParseTarget reads scheme://HOST or scheme://HOST:PORT, such as smtp://127.0.0.1:2525.
// An s at the end of the scheme stands for implicit TLS.
func ParseTarget(s string) (Target, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return Target{}, fmt.Errorf("%q is no target; use SCHEME://HOST:PORT with one of %s", s, schemes())
	}
	for i := range protocols {
		p := &protocols[i]
		t := Target{Host: u.Hostname(), protocol: p}
		switch {
		case u.Scheme == p.scheme:
			t.Port = cmp.Or(u.Port(), p.port)
		case p.tlsPort != "" && u.Scheme == p.implicit():
			t.Port, t.Implicit = cmp.Or(u.Port(), p.tlsPort), true
		default:
			continue
		}
		return t, nil
	}
	return Target{}, fmt.Errorf("unknown scheme %q; use %s", u.Scheme, schemes())
}

func schemes() string {
	var all []string
	for _, p := range protocols {
		all = append(all, p.scheme)
		if p.tlsPort != "" {
			all = append(all, p.implicit())
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// implicit is the scheme with implicit TLS, for what has a port for that.
func (p *protocol) implicit() string { return p.scheme + "s" }

// Address is HOST:PORT.
func (t Target) Address() string { return net.JoinHostPort(t.Host, t.Port) }

// String is what ParseTarget reads.
func (t Target) String() string {
	if t.protocol == nil {
		return ""
	}
	scheme := t.protocol.scheme
	if t.Implicit {
		scheme = t.protocol.implicit()
	}
	return scheme + "://" + t.Address()
}

// Loopback reports whether the target is this machine by its address, or is
// called localhost.
func (t Target) Loopback() bool {
	ip := net.ParseIP(t.Host)
	return t.Host == "localhost" || ip != nil && ip.IsLoopback()
}
