package pop3

import (
	"bytes"

	"starttlsd/codec"
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, line, up, out []byte) ([]byte, []byte, codec.Action) // nil: it is the backend's
	kind  kind
	flags flags
}

// kind is what a command that the backend has is, to its reply.
type kind uint8

const (
	nothing kind = iota // it has none
	simple              // one line
	list                // CAPA: with +OK, lines up to a dot
	login               // with +OK, the client has logged in
	sasl                // the same, behind a dialogue
)

// flags are policy, applied by dispatch alone.
type flags uint8

const (
	noArg    flags = 1 << iota // takes no argument
	needsArg                   // takes one
	junk                       // does no work: counted
	needsTLS                   // not in clear
)

var commands = map[string]*command{
	"CAPA": {(*Session).capa, list, noArg | junk},
	"STLS": {(*Session).stls, 0, noArg | junk},
	"NOOP": {(*Session).noop, 0, noArg | junk}, // not before login by RFC 1939, but harmless
	"QUIT": {(*Session).quit, 0, noArg},
	"USER": {nil, simple, needsArg | needsTLS},
	"PASS": {nil, login, needsArg | needsTLS},
	"AUTH": {nil, sasl, needsArg | needsTLS},
	"UTF8": {nil, simple, noArg | junk | needsTLS}, // RFC 6856 §2.1
	"LANG": {nil, simple, needsArg | junk | needsTLS},
	"APOP": {(*Session).apop, 0, needsTLS},
}

// afterLogin are commands of which a client should know that they are too early.
var afterLogin = map[string]bool{
	"STAT": true, "LIST": true, "RETR": true, "DELE": true, "RSET": true, "TOP": true, "UIDL": true,
}

// foreign are the verbs of HTTP.
var foreign = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "PATCH": true, "TRACE": true, "PRI": true,
}

const (
	// maxAnswer is the longest SASL response, with its CRLF (RFC 5034 §4 asks for as
	// much as the mechanism needs).
	maxAnswer = 12288

	// maxWhole is the longest line that every backend reads as one (RFC 2449 §4 allows
	// 255 octets). What it cuts off is a command to it, whose +OK must not pass for
	// the next one's.
	maxWhole = 512
)

// Step implements codec.Session.
func (s *Session) Step(in, out []byte) (int, []byte, codec.Action) {
	n, _, out, action := s.Forward(in, nil, out)
	return n, out, action
}

// Forward implements codec.Relayed.
func (s *Session) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	switch s.phase {
	case waiting:
		return 0, up, out, codec.Hold
	case dialogue, answer:
	default:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	}
	most := int(limit(s.cfg.Limits.Line, defaultLine))
	if s.phase == answer {
		most = maxAnswer
	}
	before := s.line
	n, line, status := s.line.Next(in, most)
	action := codec.NeedMore
	switch {
	case status == codec.LineMore:
	case s.phase == answer && status == codec.LineOK && codec.IsSASLResponse(line):
		up, action = s.send(line, up), codec.Continue
	case status == codec.LineBinary, s.phase == answer:
		out, action = s.close(out, "-ERR This is POP3, and no SASL response")
	case status == codec.LineTooLong:
		out, action = s.refuse(out, "-ERR Line too long")
	case status == codec.LineBad:
		out, action = s.refuse(out, "-ERR NUL, bare CR or bare LF in a command")
	default:
		up, out, action = s.command(line, up, out)
	}
	if action == codec.Dial { // Forward sees it again, with what was skipped before it
		s.line, n = before, 0
	}
	return n, up, out, action
}

// command runs a command, unless the policy in its row refuses it.
func (s *Session) command(line, up, out []byte) ([]byte, []byte, codec.Action) {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	mechanism, _, _ := bytes.Cut(arg, []byte{' '})
	verb := codec.Upper(word[:min(len(word), 8)])
	c := commands[verb]
	var why string
	switch {
	case c == nil && !s.known && (foreign[verb] || !afterLogin[verb]):
		out, action := s.close(out, "-ERR This is POP3")
		return up, out, action
	case c == nil && afterLogin[verb]:
		why = "-ERR Log in first"
	case c == nil:
		why = "-ERR Command not recognized"
	case s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk): // failed logins
		out, action := s.close(out, "-ERR Too many commands without a login")
		return up, out, action
	case c.flags&needsTLS != 0 && !s.secured:
		return s.tooEarly(up, out)
	case c.flags&noArg != 0 && len(arg) > 0:
		why = "-ERR No argument is expected"
	case c.flags&needsArg != 0 && len(arg) == 0:
		why = "-ERR An argument is expected"
	case c.kind == sasl && !codec.PassesSASL(mechanism):
		why = "-ERR That mechanism is not offered"
	case c.kind == simple && len(line) > maxWhole:
		why = "-ERR Line too long"
	case s.backend == nil && s.secured && c.kind != nothing:
		return up, out, codec.Dial
	}
	s.commands++
	s.known = s.known || c != nil
	if why != "" {
		out, action := s.refuse(out, why)
		return up, out, action
	}
	if c.flags&junk != 0 {
		if s.junk++; s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk) {
			out, action := s.close(out, "-ERR Too many commands without a login")
			return up, out, action
		}
	}
	if c.run != nil && (s.backend == nil || c.kind == nothing) {
		return c.run(s, line, up, out)
	}
	s.backend.has, s.backend.long = c.kind, false
	return s.send(line, up), out, codec.Continue
}

// send passes on a command, or a SASL response.
func (s *Session) send(line, up []byte) []byte {
	s.backend.long = s.backend.long || len(line) > maxWhole
	s.to(waiting)
	return append(append(up, line...), "\r\n"...)
}

// tooEarly refuses credentials in clear.
func (s *Session) tooEarly(up, out []byte) ([]byte, []byte, codec.Action) {
	s.known = true
	if s.junk++; s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk) {
		out, action := s.close(out, "-ERR Too many commands without a login")
		return up, out, action
	}
	return up, say(out, "-ERR [SYS/PERM] Use STLS first"), codec.Continue
}

// capa is what can be done in clear (RFC 2449 §5).
func (s *Session) capa(_, up, out []byte) ([]byte, []byte, codec.Action) {
	out = say(out, "+OK Capability list follows")
	if s.cfg.TLS {
		out = say(out, "STLS")
	}
	return up, say(say(out, "RESP-CODES"), "."), codec.Continue
}

// stls only asks: the engine decides, and calls GoAhead or Refuse.
func (s *Session) stls(_, up, out []byte) ([]byte, []byte, codec.Action) {
	why := ""
	switch {
	case s.secured:
		why = "-ERR TLS is active already"
	case !s.cfg.TLS:
		why = "-ERR TLS is not offered"
	default:
		s.to(asked)
		return up, out, codec.Upgrade
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

func (s *Session) noop(_, up, out []byte) ([]byte, []byte, codec.Action) {
	return up, say(out, "+OK"), codec.Continue
}

func (s *Session) apop(_, up, out []byte) ([]byte, []byte, codec.Action) {
	out, action := s.refuse(out, "-ERR Not offered")
	return up, out, action
}

func (s *Session) quit(_, up, out []byte) ([]byte, []byte, codec.Action) {
	out, action := s.close(out, "+OK Bye")
	return up, out, action
}

// refuse answers what was not carried out, and counts it.
func (s *Session) refuse(out []byte, text string) ([]byte, codec.Action) {
	if s.bad++; s.bad >= limit(s.cfg.Limits.BadCommands, defaultBad) {
		return s.close(out, "-ERR Too many errors")
	}
	return say(out, text), codec.Continue
}

func (s *Session) close(out []byte, text string) ([]byte, codec.Action) {
	s.to(over)
	return say(out, text), codec.Close
}
