package sieve

import (
	"bytes"
	"fmt"

	"starttlsd/codec"
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, line, arg, up, out []byte) ([]byte, []byte, codec.Action)
	flags flags
}

// flags are policy, applied by command alone.
type flags uint8

const (
	noArg    flags = 1 << iota // takes no argument
	needsArg                   // takes one
	junk                       // does no work: counted
	needsTLS                   // not in clear
)

var commands = map[string]*command{
	"CAPABILITY":   {(*Session).capability, noArg | junk},
	"STARTTLS":     {(*Session).starttls, noArg | junk},
	"NOOP":         {(*Session).noop, junk},
	"LOGOUT":       {(*Session).logout, noArg},
	"AUTHENTICATE": {(*Session).authenticate, needsArg | needsTLS},
}

// afterLogin are commands of which a client should know that they are too early.
var afterLogin = map[string]bool{
	"HAVESPACE": true, "PUTSCRIPT": true, "LISTSCRIPTS": true, "SETACTIVE": true, "GETSCRIPT": true,
	"DELETESCRIPT": true, "RENAMESCRIPT": true, "CHECKSCRIPT": true, "UNAUTHENTICATE": true,
}

// Step implements codec.Session. Under TLS the session needs its backend at once.
func (s *Session) Step(in, out []byte) (int, []byte, codec.Action) {
	if s.secured && s.phase == dialogue && s.backend == nil {
		return 0, out, codec.Dial
	}
	n, _, out, action := s.Forward(in, nil, out)
	return n, out, action
}

// Forward implements codec.Relayed.
func (s *Session) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	if s.backend != nil && !s.announced {
		s.announced = true
		return 0, up, s.ready(append(out, s.backend.list...)), codec.Continue
	}
	switch s.phase {
	case waiting:
		return 0, up, out, codec.Hold
	case literal:
		b := s.backend
		n := min(len(in), b.left)
		b.text = append(b.text, in[:n]...)
		if b.left -= n; b.left > 0 {
			return n, up, out, codec.NeedMore
		}
		s.to(rest)
		return n, up, out, codec.Continue
	case dialogue, answer, rest:
	default:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	}
	if s.swallow > 0 {
		n := min(len(in), s.swallow)
		if s.swallow -= n; s.swallow == 0 {
			return n, up, out, codec.Continue
		}
		return n, up, out, codec.NeedMore
	}
	n, line, status := s.line.Next(in, int(limit(s.cfg.Limits.Line, defaultLine)))
	action := codec.NeedMore
	switch {
	case status == codec.LineMore:
	case status == codec.LineOK && s.swallowing:
		out, action = s.skipRest(line, out)
	case status == codec.LineOK && s.phase == answer:
		up, out, action = s.response(line, up, out)
	case status == codec.LineOK && s.phase == rest && len(line) == 0:
		up, out, action = s.send(s.backend.text, up, out)
	case status == codec.LineOK:
		up, out, action = s.command(line, up, out)
	case status == codec.LineBad && s.phase == dialogue && !s.swallowing:
		up, out, action = s.reject(line, up, out, `NO "NUL, bare CR or bare LF in a command"`)
	case status == codec.LineTooLong && s.phase == dialogue && !s.swallowing: // a literal may follow, or not
		out, action = s.close(out, `BYE "Line too long"`)
	default:
		out, action = s.close(out, `BYE "This is ManageSieve"`)
	}
	return n, up, out, action
}

// command runs a command, unless the policy in its row refuses it.
func (s *Session) command(line, up, out []byte) ([]byte, []byte, codec.Action) {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	verb := codec.Upper(word[:min(len(word), 16)])
	c := commands[verb]
	s.commands++
	s.known = s.known || c != nil || afterLogin[verb]
	switch {
	case c == nil && !s.known:
		out, action := s.close(out, `BYE "This is ManageSieve"`)
		return up, out, action
	case c == nil && afterLogin[verb]:
		return s.reject(line, up, out, `NO "Log in first"`)
	case c == nil:
		return s.reject(line, up, out, `NO "Command not recognized"`)
	case s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk): // failed logins
		out, action := s.close(out, `BYE "Too many commands without a login"`)
		return up, out, action
	case c.flags&needsTLS != 0 && !s.secured: // RFC 5804 §1.3
		return s.reject(line, up, out, `NO (ENCRYPT-NEEDED) "Use STARTTLS first"`)
	case c.flags&noArg != 0 && len(arg) > 0:
		return s.reject(line, up, out, `NO "No argument is expected"`)
	case c.flags&needsArg != 0 && len(arg) == 0:
		return s.reject(line, up, out, `NO "An argument is expected"`)
	}
	if c.flags&junk != 0 {
		if s.junk++; s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk) {
			out, action := s.close(out, `BYE "Too many commands without a login"`)
			return up, out, action
		}
	}
	return c.run(s, line, arg, up, out)
}

func (s *Session) capability(_, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.backend != nil {
		out = append(out, s.backend.list...)
	} else {
		out = s.inClear(out)
	}
	return up, say(out, `OK "Done"`), codec.Continue
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (s *Session) starttls(line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	switch {
	case s.secured:
		return s.reject(line, up, out, `NO "TLS is active already"`)
	case !s.cfg.TLS:
		return s.reject(line, up, out, `NO "TLS is not offered"`)
	}
	s.to(asked)
	return up, out, codec.Upgrade
}

// noop answers with the tag that it is given, if that is a quoted string (RFC 5804 §2.13).
func (s *Session) noop(line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	switch {
	case len(arg) == 0:
		return up, say(out, `OK "Done"`), codec.Continue
	case quoted(arg):
		return up, append(append(append(out, "OK (TAG "...), arg...), ") \"Done\"\r\n"...), codec.Continue
	default:
		return s.reject(line, up, out, `NO "A quoted string is expected"`)
	}
}

// quoted reports whether p is one quoted string.
func quoted(p []byte) bool {
	if len(p) < 2 || p[0] != '"' || p[len(p)-1] != '"' {
		return false
	}
	for i := 1; i < len(p)-1; i++ {
		switch p[i] {
		case '\\':
			if i++; i == len(p)-1 {
				return false
			}
		case '"':
			return false
		}
	}
	return true
}

func (s *Session) logout(_, _, up, out []byte) ([]byte, []byte, codec.Action) {
	out, action := s.close(out, `OK "Logging out"`)
	return up, out, action
}

func (s *Session) authenticate(line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	mechanism, initial, more := bytes.Cut(arg, []byte{' '})
	if !quoted(mechanism) || !codec.PassesSASL(mechanism[1:len(mechanism)-1]) || more && !bytes.ContainsAny(initial[:min(1, len(initial))], `"{`) {
		return s.reject(line, up, out, `NO "A mechanism that is offered is expected, and a string"`)
	}
	command := append([]byte("AUTHENTICATE "), mechanism...)
	if !more {
		s.backend.has = true
		s.to(waiting)
		return append(append(up, command...), "\r\n"...), out, codec.Continue
	}
	s.backend.command = append(command, ' ')
	return s.response(initial, up, out)
}

// response takes a string of SASL: quoted, or as a literal, which follows at once.
func (s *Session) response(text, up, out []byte) ([]byte, []byte, codec.Action) {
	size, unasked, lit := literalAt(text)
	switch {
	case quoted(text):
		return s.send(text[1:len(text)-1], up, out)
	case lit && unasked && bytes.LastIndexByte(text, '{') == 0 && size <= int(limit(s.cfg.Limits.Literal, defaultLiteral)):
		s.backend.left, s.backend.text = size, s.backend.text[:0]
		s.to(literal)
		return up, out, codec.Continue
	case lit:
		out, action := s.close(out, `BYE "That is no literal that is taken here"`)
		return up, out, action
	}
	out, action := s.close(out, noResponse)
	return up, out, action
}

const noResponse = `BYE "That is no SASL response"`

// maxQuoted is the longest quoted string (RFC 5804 §4), in octets.
const maxQuoted = 1024

// send passes on a SASL response, with the command that it is the first of. As a quoted
// string, no backend can take it for a command, whatever else it thinks of the line.
// One that is too long for that is no command's name either, but may be cut in two.
func (s *Session) send(text, up, out []byte) ([]byte, []byte, codec.Action) {
	b := s.backend
	if !codec.IsSASLResponse(text) {
		out, action := s.close(out, noResponse)
		return up, out, action
	}
	up = append(up, b.command...)
	if len(text) > maxQuoted {
		b.long = true
		up = fmt.Appendf(up, "{%d+}\r\n%s\r\n", len(text), text)
	} else {
		up = fmt.Appendf(up, "\"%s\"\r\n", text)
	}
	b.has, b.command, b.text = true, nil, nil
	s.to(waiting)
	return up, out, codec.Continue
}

// refuse answers what was not carried out, and counts it.
func (s *Session) refuse(out []byte, text string) ([]byte, codec.Action) {
	if s.bad++; s.bad >= limit(s.cfg.Limits.BadCommands, defaultBad) {
		return s.close(out, `BYE "Too many errors"`)
	}
	return say(out, text), codec.Continue
}

// reject refuses a command. A literal in it, which comes unasked, is never taken for
// another.
func (s *Session) reject(line, up, out []byte, text string) ([]byte, []byte, codec.Action) {
	out, action := s.refuse(out, text)
	if action == codec.Continue {
		out, action = s.skipRest(line, out)
	}
	return up, out, action
}

func (s *Session) skipRest(line, out []byte) ([]byte, codec.Action) {
	size, unasked, lit := literalAt(line)
	s.swallowing = lit
	switch {
	case !lit:
		return out, codec.Continue
	case !unasked || size > int(limit(s.cfg.Limits.Literal, defaultLiteral)):
		return s.close(out, `BYE "That is no literal that is taken here"`)
	}
	s.swallow = size
	return out, codec.Continue
}

func (s *Session) close(out []byte, text string) ([]byte, codec.Action) {
	s.to(over)
	return say(out, text), codec.Close
}

// literalAt reports whether line ends with the announcement of a literal: {n+}, which
// a client sends and then goes on unasked, or {n}, which only a server may send
// (RFC 5804 §4). A size that is no number comes back as more than any limit.
func literalAt(line []byte) (size int, unasked, ok bool) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0, false, false
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return 0, false, false
	}
	digits, unasked := bytes.CutSuffix(line[i+1:len(line)-1], []byte{'+'})
	if len(digits) == 0 {
		return 0, false, false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		if size = size*10 + int(c-'0'); size > 1<<30 {
			size = 1 << 30
		}
	}
	return size, unasked, true
}
