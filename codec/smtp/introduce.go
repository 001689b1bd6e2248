package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"starttlsd/codec"
)

// Introduce implements codec.Relayed: the backend is told who the client is and
// what it calls itself, unless that is what the client says next.
func (g *Gateway) Introduce(u codec.Upstream, c *codec.Client) error {
	switch code, lines, err := readReply(u); {
	case err != nil:
		return fmt.Errorf("waiting for the backend's greeting: %w", err)
	case code != 220:
		return unexpected("greets with", code, lines)
	}
	if u.MustStartTLS() {
		if err := g.startTLS(u); err != nil {
			return err
		}
	}
	if g.cfg.XCLIENT {
		if err := g.xclient(u, c); err != nil {
			return err
		}
	}
	if l := g.link; l.hello != noHello || g.hello == noHello {
		return nil
	}
	return g.greetFor(u)
}

// startTLS upgrades the connection with the backend.
func (g *Gateway) startTLS(u codec.Upstream) error {
	list, err := g.ask(u, g.verb()+" "+g.cfg.Hostname, 250)
	if err != nil {
		return err
	}
	if _, ok := offeredIn(list, "STARTTLS"); !ok {
		return errors.New("the backend does not offer STARTTLS; use tls:// if its port begins with TLS, or tcp:// if it has none and the way to it is safe")
	}
	if _, err := g.ask(u, "STARTTLS", 220); err != nil {
		return err
	}
	if err := u.StartTLS(); err != nil {
		return fmt.Errorf("TLS with the backend: %w", err)
	}
	return nil
}

// xclient tells of the client, behind which the backend is as after its greeting.
// A backend that lists XCLIENT and then refuses it would take what the client does
// for what we do, so that is an error. One that does not list it is as configured
// on its side.
func (g *Gateway) xclient(u codec.Upstream, c *codec.Client) error {
	list, err := g.ask(u, g.verb()+" "+g.cfg.Hostname, 250)
	if err != nil {
		return err
	}
	listed, ok := offeredIn(list, "XCLIENT")
	command := ""
	if ok {
		command = g.attributes(strings.Fields(listed), c)
	}
	if g.link.noXCLIENT = command == ""; g.link.noXCLIENT {
		return nil
	}
	_, err = g.ask(u, "XCLIENT"+command, 220)
	return err
}

// maxXCLIENT bounds the command (RFC 5321 §4.5.3.1.4).
const maxXCLIENT = 512

// attributes are those of the client that the backend lists, each behind a space. A
// name that is not looked up is said to be none: else ours would stand for it.
// LOGIN is never told: nobody has logged in yet.
func (g *Gateway) attributes(listed []string, c *codec.Client) string {
	name, how := g.link.name, g.link.hello
	if how == noHello {
		name, how = g.helo, g.hello
	}
	proto := [...]string{noHello: "", basic: "SMTP", extended: "ESMTP"}[how]
	if proto != "" && g.cfg.LMTP {
		proto = "LMTP"
	}
	remote, local := c.Peer.Remote, c.Peer.Local()
	command := ""
	for _, a := range []struct{ name, value string }{
		{"NAME", "[UNAVAILABLE]"},
		{"ADDR", xclientAddr(remote)},
		{"PORT", xclientPort(remote)},
		{"PROTO", proto},
		{"HELO", xtext(name)},
		{"DESTADDR", xclientAddr(local)},
		{"DESTPORT", xclientPort(local)},
		{"SESSION", c.Peer.ID.String()},
	} {
		if text := " " + a.name + "=" + a.value; a.value != "" && lists(listed, a.name) &&
			len("XCLIENT")+len(command)+len(text)+len("\r\n") <= maxXCLIENT {
			command += text
		}
	}
	return command
}

// greetFor says the client's EHLO or HELO, which we have answered in clear. If the
// backend does not accept the name, its words are the reply to what follows.
func (g *Gateway) greetFor(u codec.Upstream) error {
	verb := g.verb()
	if g.hello == basic {
		verb = "HELO"
	}
	list, err := g.ask(u, verb+" "+g.helo, 250)
	if unwanted, ok := errors.AsType[*unwanted](err); ok && unwanted.isPolicy() {
		g.link.rejection = &reply{unwanted.code, "", unwanted.text}
	}
	if err != nil {
		return err
	}
	if g.hello == extended {
		for _, line := range list[1:] {
			g.link.offered(line)
		}
	}
	return nil
}

// verb is the greeting that has a list for a reply.
func (g *Gateway) verb() string {
	if g.cfg.LMTP {
		return "LHLO"
	}
	return "EHLO"
}

// ask sends a command, and returns the lines of its reply without their code.
func (g *Gateway) ask(u codec.Upstream, command string, want int) ([]string, error) {
	verb, _, _ := strings.Cut(command, " ")
	if _, err := u.Write([]byte(command + "\r\n")); err != nil {
		return nil, fmt.Errorf("sending %s to the backend: %w", verb, err)
	}
	code, lines, err := readReply(u)
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for the backend's reply to %s: %w", verb, err)
	case code != want:
		return nil, unexpected("answers "+verb+" with", code, lines)
	}
	return lines, nil
}

// unwanted is a reply that ends the introduction.
type unwanted struct {
	does string
	code int
	text string
}

func unexpected(does string, code int, lines []string) error {
	return &unwanted{does, code, lines[len(lines)-1]}
}

func (u *unwanted) Error() string {
	return fmt.Sprintf("the backend %s %d %.200q; see its log for why", u.does, u.code, u.text)
}

// isPolicy reports whether it is about the client, and not about how we get on with the
// backend (RFC 5321 §4.2.2).
func (u *unwanted) isPolicy() bool {
	switch u.code {
	case 421, 500, 502, 503:
		return false
	}
	return u.code >= 400
}

var errReply = errors.New("the reply is not of SMTP; is the port right?")

// readReply reads a whole reply. There is at least one line.
func readReply(u codec.Upstream) (code int, lines []string, err error) {
	octets := 0
	for more := true; more; {
		line, err := u.ReadLine()
		if err != nil {
			return 0, nil, err
		}
		c, m, ok := parseReply(line)
		octets += len(line)
		if !ok || len(line) > maxReplyLine || octets > maxReplySize || len(lines) > 0 && c != code {
			return 0, nil, errReply
		}
		code, more = c, m
		lines = append(lines, string(line[min(len(line), len("250 ")):]))
	}
	return code, lines, nil
}

// offeredIn looks for an extension in a reply to EHLO, and returns its parameters.
func offeredIn(list []string, extension string) (params string, ok bool) {
	for _, line := range list[1:] {
		if keyword, params, _ := strings.Cut(line, " "); codec.Is(keyword, extension) {
			return params, true
		}
	}
	return "", false
}

func lists(names []string, name string) bool {
	for _, n := range names {
		if codec.Is(n, name) {
			return true
		}
	}
	return false
}

func xclientAddr(a netip.AddrPort) string {
	addr := a.Addr().Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return ""
	case addr.Is4():
		return addr.String()
	default:
		return "IPV6:" + addr.String()
	}
}

func xclientPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return strconv.Itoa(int(a.Port()))
}

// xtext is RFC 3461 §4.
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
