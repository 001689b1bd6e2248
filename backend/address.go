package backend

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Scheme says how a backend is spoken to.
type Scheme string

// The schemes of an Address.
const (
	Plain    Scheme = "tcp"      // in clear
	Implicit Scheme = "tls"      // TLS from the first byte
	StartTLS Scheme = "starttls" // in clear until the session has sent STARTTLS, which must succeed
)

// Address is where a backend is and how it is spoken to.
type Address struct {
	Scheme Scheme
	Host   string // a name or an IP address, without brackets
	Port   uint16 // not 0
}

// ParseAddress takes tcp://host:port, tls://host:port and starttls://host:port.
func ParseAddress(s string) (Address, error) {
	scheme, rest, ok := strings.Cut(s, "://")
	a := Address{Scheme: Scheme(scheme)}
	if !ok || a.Scheme != Plain && a.Scheme != Implicit && a.Scheme != StartTLS {
		return Address{}, fmt.Errorf("%q is not known; write tcp://host:port, tls://host:port or starttls://host:port", s)
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		return Address{}, fmt.Errorf("%q is not %s://host:port; write for instance %[2]s://mail.internal:143 or \"%[2]s://[::1]:143\"", s, scheme)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Address{}, fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	if _, err := netip.ParseAddr(host); err != nil && !isName(host) {
		return Address{}, fmt.Errorf("%q is neither a host name nor an IP address", host)
	}
	a.Host, a.Port = host, uint16(n)
	return a, nil
}

// String is what ParseAddress takes.
func (a Address) String() string { return string(a.Scheme) + "://" + a.hostPort() }

func (a Address) hostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// serverName is the name that the backend's certificate has to be for.
func (a Address) serverName() string {
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return ip.WithZone("").String()
	}
	return strings.TrimSuffix(a.Host, ".")
}

// isName: s may be a host name. Underscores are in those of containers.
func isName(s string) bool {
	return s != "" && len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
	})
}
