package smtp

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"starttlsd/codec"
)

// Introduce implements codec.Relayed. Under TLS the client's own EHLO is what the
// backend gets next; in clear the client has said it before.
func (g *Gateway) Introduce(u codec.Upstream, c *codec.Client) error {
	if _, err := expect(u, "its greeting", 220); err != nil {
		return err
	}
	if u.MustStartTLS() {
		list, err := g.ask(u, g.cfg.Hostname, true)
		if err != nil {
			return err
		}
		if _, ok := isOn(list, "STARTTLS"); !ok {
			return errors.New("it does not offer STARTTLS; give it a certificate, or use tcp:// or tls://")
		}
		if _, err := command1(u, "STARTTLS", 220); err != nil {
			return err
		}
		if err := u.StartTLS(); err != nil {
			return err
		}
	}
	if g.cfg.XCLIENT {
		list, err := g.ask(u, g.cfg.Hostname, true)
		if err != nil {
			return err
		}
		if names, ok := isOn(list, "XCLIENT"); ok {
			if _, err := command1(u, "XCLIENT"+g.identity(names, c), 220); err != nil {
				return err
			}
		}
	}
	if !g.secured {
		if _, err := g.ask(u, g.helo, g.extended); err != nil {
			return err
		}
	}
	g.relay = &relay{}
	return nil
}

// ask says hello and returns what is offered.
func (g *Gateway) ask(u codec.Upstream, name string, extended bool) ([]string, error) {
	verb := "HELO "
	switch {
	case g.cfg.LMTP:
		verb = "LHLO "
	case extended:
		verb = "EHLO "
	}
	return command1(u, verb+name, 250)
}

// identity is the arguments of XCLIENT, as far as the backend takes them.
func (g *Gateway) identity(names string, c *codec.Client) string {
	protocol := "SMTP"
	switch {
	case g.cfg.LMTP:
		protocol = "LMTP"
	case g.extended, g.secured: // EHLO comes next
		protocol = "ESMTP"
	}
	local := c.Peer.Local()
	values := map[string]string{
		"NAME": "[UNAVAILABLE]", "ADDR": address(c.Peer.Remote.Addr()), "PORT": strconv.Itoa(int(c.Peer.Remote.Port())),
		"PROTO": protocol, "HELO": g.helo,
		"DESTADDR": address(local.Addr()), "DESTPORT": strconv.Itoa(int(local.Port())), "SESSION": c.Peer.ID.String(),
	}
	var b strings.Builder
	for name := range strings.FieldsSeq(strings.ToUpper(names)) {
		if v := values[name]; v != "" {
			b.WriteString(" " + name + "=" + xtext(v))
		}
	}
	return b.String()
}

func address(a netip.Addr) string {
	if a = a.Unmap().WithZone(""); a.Is6() {
		return "IPV6:" + a.String()
	}
	return a.String()
}

// xtext encodes a value (RFC 3461 §4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// command1 sends a command, and returns the lines of its reply.
func command1(u codec.Upstream, line string, want int) ([]string, error) {
	if _, err := io.WriteString(u, line+"\r\n"); err != nil {
		return nil, err
	}
	verb, _, _ := strings.Cut(line, " ")
	return expect(u, "the reply to "+verb, want)
}

// expect reads a reply and returns its lines.
func expect(u codec.Upstream, what string, want int) (lines []string, err error) {
	for range maxList {
		line, err := u.ReadLine()
		if err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", what, err)
		}
		code, more, ok := parseReply(line)
		if !ok || code != want {
			return nil, fmt.Errorf("%s is %q, not %d", what, clip(line), want)
		}
		lines = append(lines, string(line[min(4, len(line)):]))
		if !more {
			return lines, nil
		}
	}
	return nil, fmt.Errorf("%s has more than %d lines", what, maxList)
}
