package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Check finds what is wrong with the values and returns the first of it. It
// looks at no file and no socket: BuildTLS and the listeners do. Load calls it;
// call it for a configuration that was made or changed in Go.
func (c *Config) Check() error {
	return c.locate(cmp.Or(
		under("hostname", checkHostname(c.Hostname)),
		under("tls", c.TLS.check()),
		under("limits", cmp.Or(c.Limits.ProcessLimits.check(), c.Limits.SessionLimits.check())),
		c.checkListeners(), // after the limits they inherit
		within("drain", c.Drain, 0, 24*time.Hour),
		c.checkAdmin(),
		under("log", c.Log.check()),
	))
}

// locate makes err, a *keyError, point into the file c was loaded from, if any.
func (c *Config) locate(err error) error {
	if e, ok := errors.AsType[*keyError](err); ok && c.src.nodes != nil {
		return c.src.locate(e)
	}
	return err
}

// under says that err was found below path.
func under(path string, err error) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*keyError](err); ok {
		return &keyError{join(path, e.path), e.problem}
	}
	return &keyError{path, err.Error()}
}

func (t *TLS) check() error {
	for i, pair := range t.Certificates {
		if pair.Cert == "" || pair.Key == "" {
			return &keyError{fmt.Sprintf("certificates[%d]", i), "both cert and key have to name a PEM file"}
		}
	}
	if t.ClientCA == "" && (t.ClientAuth == VerifyClientCert || t.ClientAuth == RequireClientCert) {
		return &keyError{"client_auth", fmt.Sprintf("%s needs client_ca, the PEM file of the authorities to trust", t.ClientAuth)}
	}
	return cmp.Or(
		oneOf("profile", t.Profile, Modern, Intermediate, Legacy),
		oneOf("client_auth", t.ClientAuth, NoClientCert, RequestClientCert, VerifyClientCert, RequireClientCert),
		under("session_tickets", t.SessionTickets.check()),
	)
}

// AutoKeys are ticket keys that this process makes for itself.
const AutoKeys = "auto"

// Remote reports whether the keys are kept by another server.
func (s *SessionTickets) Remote() bool {
	return s.Keys != AutoKeys && !strings.HasPrefix(s.Keys, "file:")
}

func (s *SessionTickets) check() error {
	u, err := url.Parse(s.Keys)
	path, file := strings.CutPrefix(s.Keys, "file:")
	switch {
	case s.Keys == AutoKeys:
	case file && path == "":
		return &keyError{"keys", "the path is missing; write file:PATH"}
	case file:
	case err != nil || u.Scheme != "redis" && u.Scheme != "rediss": // the text may hold a password
		return &keyError{"keys", "not known; use auto, file:PATH, redis://HOST:PORT/DB or rediss://HOST:PORT/DB"}
	case u.Host == "":
		return &keyError{"keys", "the host is missing; write redis://HOST:PORT/DB"}
	}
	return within("rotate", s.Rotate, time.Second, 7*24*time.Hour) // RFC 8446 §4.6.1: tickets live seven days at most
}

func (c *Config) checkAdmin() error {
	address := c.Admin.Address
	if address == "" || isInherited(address) {
		return nil
	}
	addr, err := parseAddress(address)
	if err != nil {
		return under("admin.address", err)
	}
	for i := range c.Listeners {
		if l, err := parseAddress(c.Listeners[i].Address); err == nil && l == addr && addr.Port() != 0 {
			return &keyError{"admin.address", fmt.Sprintf("%s is taken by listeners[%d]", address, i)}
		}
	}
	return nil
}

// Inherited is the NAME of an address fd:NAME.
func Inherited(address string) (name string, ok bool) { return strings.CutPrefix(address, "fd:") }

func isInherited(address string) bool {
	name, ok := Inherited(address)
	return ok && name != ""
}

func (c *Config) checkListeners() error {
	if len(c.Listeners) == 0 {
		return &keyError{"listeners", `nothing is served; add for instance - {address: "127.0.0.1:2525", protocol: smtp, backend: "maildir:./maildir"}`}
	}
	taken := make(map[netip.AddrPort]int)
	for i := range c.Listeners {
		l, path := &c.Listeners[i], fmt.Sprintf("listeners[%d]", i)
		if err := under(path, l.check()); err != nil {
			return err
		}
		if l.DataSession == ResumeControl && c.TLS.SessionTickets.Off {
			return &keyError{path + ".data_session", "resume needs session tickets, and tls.session_tickets.off is true; remove that, or use address"}
		}
		addr, err := parseAddress(l.Address)
		if err != nil { // inherited: a name may stand for several sockets
			continue
		}
		if first, ok := taken[addr]; ok && addr.Port() != 0 {
			return &keyError{path + ".address", fmt.Sprintf("%s is taken by listeners[%d]", l.Address, first)}
		}
		taken[addr] = i
	}
	return nil
}

func (l *Listener) check() error {
	if _, err := parseAddress(l.Address); err != nil && !isInherited(l.Address) {
		return under("address", err)
	}
	if err := oneOf("protocol", l.Protocol, "smtp", "lmtp", "imap", "pop3", "sieve", "nntp", "ftp"); err != nil {
		return err // the backend has to suit it
	}
	return cmp.Or(
		oneOf("tls", l.TLS, StartTLS, Implicit),
		l.checkRequireTLS(),
		l.checkTrusted(),
		l.checkBackend(),
		l.checkFTP(),
		under("limits", l.Limits.check()),
	)
}

func (l *Log) check() error {
	return cmp.Or(
		oneOf("level", l.Level, "debug", "info", "warn", "error"),
		oneOf("format", l.Format, "text", "json"),
		within("rate", l.Rate, 1, 1<<20),
		within("burst", l.Burst, 0, 1<<20),
	)
}

func oneOf[S ~string](key string, v S, known ...S) error {
	if slices.Contains(known, v) {
		return nil
	}
	return &keyError{key, fmt.Sprintf("%s; use %s", unknown(string(v)), list(known))}
}

func unknown(v string) string {
	if v == "" {
		return "missing"
	}
	return strconv.Quote(v) + " is not known"
}

// list is "a", "a or b", "a, b or c".
func list[S ~string](words []S) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i > 0 && i == len(words)-1:
			b.WriteString(" or ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(string(w))
	}
	return b.String()
}

// parseAddress takes IP:port and :port, which is every address, as [::]:port is.
// A name is refused because it may stand for several addresses, of which the
// listener would serve one; a zone because gnet cannot hold such connections.
func parseAddress(s string) (netip.AddrPort, error) {
	if s == "" {
		return netip.AddrPort{}, errors.New(`missing; write IP:port, or ":port" for all addresses`)
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not IP:port; write for instance 127.0.0.1:2525, \"[::1]:2525\" or fd:NAME", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q is not a number from 0 to 65535", port)
	}
	ip, err := netip.ParseAddr(cmp.Or(host, "::"))
	if err != nil || ip.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q is not an IP address; write one, without zone, or nothing for all addresses", host)
	}
	return netip.AddrPortFrom(ip, uint16(n)), nil
}

// checkHostname wants a Domain of RFC 5321 §4.1.2.
func checkHostname(name string) error {
	bad := len(name) > 253
	for label := range strings.SplitSeq(name, ".") {
		bad = bad || len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, notLDH)
	}
	if _, err := netip.ParseAddr(name); bad || err == nil {
		return fmt.Errorf("%q is not a host name; use letters, digits, hyphens and dots, and the xn-- form of others", name)
	}
	return nil
}

// notLDH: r is no letter, digit or hyphen.
func notLDH(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}
