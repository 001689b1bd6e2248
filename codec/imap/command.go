package imap

import (
	"bytes"

	"starttlsd/codec"
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, tag string, line, up, out []byte) ([]byte, []byte, codec.Action)
	flags flags
}

// flags are policy, applied by dispatch alone.
type flags uint8

const (
	noArg    flags = 1 << iota // takes no argument
	junk                       // does no work: counted
	needsTLS                   // not in clear
	relayed                    // is the backend's to answer
	noMore                     // its line does not end in a literal
)

var commands = map[string]*command{
	"CAPABILITY":   {(*Session).capability, noArg | junk | noMore},
	"NOOP":         {(*Session).noop, noArg | junk | noMore},
	"LOGOUT":       {(*Session).logout, noArg | noMore},
	"STARTTLS":     {(*Session).starttls, noArg | junk | noMore},
	"ID":           {(*Session).id, junk},
	"LOGIN":        {(*Session).login, needsTLS | relayed},
	"AUTHENTICATE": {(*Session).authenticate, needsTLS | relayed | noMore},
}

// afterLogin are commands of which a client should know that they are too early.
var afterLogin = map[string]bool{
	"ENABLE": true, "SELECT": true, "EXAMINE": true, "CREATE": true, "DELETE": true, "RENAME": true, "SUBSCRIBE": true,
	"UNSUBSCRIBE": true, "LIST": true, "LSUB": true, "NAMESPACE": true, "STATUS": true, "APPEND": true, "IDLE": true,
	"COMPRESS": true, "GETQUOTA": true, "GETQUOTAROOT": true, "CHECK": true, "CLOSE": true, "UNSELECT": true,
	"EXPUNGE": true, "SEARCH": true, "FETCH": true, "STORE": true, "COPY": true, "MOVE": true, "UID": true,
}

// foreign are the verbs of HTTP, where IMAP has its tag.
var foreign = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "PATCH": true, "TRACE": true, "PRI": true,
}

// Step implements codec.Session.
func (s *Session) Step(in, out []byte) (int, []byte, codec.Action) {
	n, _, out, action := s.step(in, nil, out)
	return n, out, action
}

// Forward implements codec.Relayed.
func (s *Session) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	return s.step(in, up, out)
}

func (s *Session) step(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	switch s.phase {
	case handshake, over, silent:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	case waiting:
		return 0, up, out, codec.Hold
	case literal:
		return s.stepLiteral(in, up, out)
	}
	if s.swallow > 0 {
		n := min(len(in), int(s.swallow))
		if s.swallow -= int32(n); s.swallow == 0 {
			return n, up, out, codec.Continue
		}
		return n, up, out, codec.NeedMore
	}
	most := limit(s.cfg.Limits.Line, defaultLine)
	if s.phase == answer {
		most = maxAnswer
	}
	before := s.line
	n, line, status := s.line.Next(in, most)
	action := codec.NeedMore
	switch {
	case status == codec.LineMore:
	case status == codec.LineTooLong && s.phase == dialogue && !s.swallowing: // a literal may follow, or not
		out, action = s.bye(out, "[TOOBIG] Line too long")
	case status == codec.LineBad && s.phase == dialogue && !s.swallowing:
		s.taken = 0
		up, out, action = s.reject(line, up, out, "*", "BAD NUL, bare CR or bare LF in a command")
	case status != codec.LineOK: // what it means for the literals of its command is not known
		out, action = s.bye(out, "This is IMAP")
	case s.swallowing:
		out, action = s.skipRest(line, out)
	case s.phase == rest:
		up, out, action = s.pass(line, up, out)
	case s.phase == answer && !codec.IsSASLResponse(line):
		out, action = s.bye(out, "That is no SASL response")
	case s.phase == answer:
		up = append(append(up, line...), "\r\n"...)
		s.to(waiting)
		action = codec.Continue
	default:
		up, out, action = s.parse(line, up, out)
	}
	if action == codec.Dial { // Forward sees it again, with what was skipped before it
		s.line, n = before, 0
	}
	return n, up, out, action
}

// parse takes a command's first line apart.
func (s *Session) parse(line, up, out []byte) ([]byte, []byte, codec.Action) {
	s.commands++
	s.taken = 0
	tag, text, _ := bytes.Cut(line, []byte{' '})
	verb, _, _ := bytes.Cut(text, []byte{' '})
	if !validTag(tag) || len(verb) == 0 || len(verb) > len("AUTHENTICATE") {
		if !s.known && foreign[string(tag)] {
			out, action := s.bye(out, "This is IMAP")
			return up, out, action
		}
		return s.reject(line, up, out, "*", "BAD A tag and a command are expected")
	}
	name := codec.Upper(verb)
	c := commands[name]
	if c == nil {
		switch {
		case !s.known && foreign[string(tag)]:
			out, action := s.bye(out, "This is IMAP")
			return up, out, action
		case afterLogin[name] && !s.secured:
			return s.reject(line, up, out, string(tag), "NO [PRIVACYREQUIRED] Use STARTTLS, and log in, first")
		case afterLogin[name]:
			return s.reject(line, up, out, string(tag), "BAD Log in first")
		}
		return s.reject(line, up, out, string(tag), "BAD Command not recognized")
	}
	s.known = true
	return s.dispatch(c, string(tag), line, len(text) > len(verb), up, out)
}

// dispatch runs a command, unless the policy in its row refuses it.
func (s *Session) dispatch(c *command, tag string, line []byte, args bool, up, out []byte) ([]byte, []byte, codec.Action) {
	if c.flags&junk != 0 {
		s.junk++
	}
	_, _, lit := literalAt(line)
	switch {
	case s.junk >= uint32(limit(s.cfg.Limits.JunkCommands, defaultJunk)):
		out, action := s.bye(out, "Too many commands without a login")
		return up, out, action
	case c.flags&needsTLS != 0 && !s.secured: // before any literal is asked for (RFC 9051 §6.2.3)
		return s.reject(line, up, out, tag, "NO [PRIVACYREQUIRED] Use STARTTLS first")
	case c.flags&noArg != 0 && args:
		return s.reject(line, up, out, tag, "BAD No argument is expected")
	case c.flags&noMore != 0 && lit:
		return s.reject(line, up, out, tag, "BAD No literal is expected")
	case c.flags&relayed != 0 && s.backend == nil:
		s.commands--
		return up, out, codec.Dial
	}
	return c.run(s, tag, line, up, out)
}

func (s *Session) capability(tag string, _, up, out []byte) ([]byte, []byte, codec.Action) {
	out = append(out, "* CAPABILITY "...)
	switch {
	case !s.secured:
		out = append(out, s.inClear()...)
	case s.backend == nil:
		s.commands--
		s.junk--
		return up, out[:len(out)-len("* CAPABILITY ")], codec.Dial
	default:
		out = appendWords(out, s.backend.offers)
	}
	return up, s.tagged(append(out, "\r\n"...), tag, "OK Done"), codec.Continue
}

func (s *Session) noop(tag string, _, up, out []byte) ([]byte, []byte, codec.Action) {
	return up, s.tagged(out, tag, "OK Done"), codec.Continue
}

func (s *Session) logout(tag string, _, up, out []byte) ([]byte, []byte, codec.Action) {
	out, _ = s.bye(out, "Logging out")
	return up, s.tagged(out, tag, "OK Done"), codec.Close
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (s *Session) starttls(tag string, line, up, out []byte) ([]byte, []byte, codec.Action) {
	switch {
	case s.secured:
		return s.reject(line, up, out, tag, "BAD TLS is active already")
	case !s.cfg.TLS:
		return s.reject(line, up, out, tag, "BAD TLS is not offered")
	}
	s.tag = tag
	s.to(asked)
	return up, out, codec.Upgrade
}

// id is answered here: a backend takes from us what it must not take from a client
// (x-originating-ip).
func (s *Session) id(tag string, line, up, out []byte) ([]byte, []byte, codec.Action) {
	if _, _, lit := literalAt(line); lit {
		return s.reject(line, up, out, tag, "BAD Literals are not taken here")
	}
	return up, s.tagged(append(out, "* ID NIL\r\n"...), tag, "OK Done"), codec.Continue
}

// refuse answers what was not carried out, and counts it.
func (s *Session) refuse(out []byte, tag, text string) ([]byte, codec.Action) {
	if s.bad++; s.bad >= uint32(limit(s.cfg.Limits.BadCommands, defaultBad)) {
		return s.bye(out, "Too many errors")
	}
	return s.tagged(out, tag, text), codec.Continue
}

// reject refuses a command. What its client sends of it without waiting is never
// taken for another.
func (s *Session) reject(line, up, out []byte, tag, text string) ([]byte, []byte, codec.Action) {
	var action codec.Action
	if bytes.HasPrefix([]byte(text), []byte("NO")) { // a client that has not looked at the capabilities
		if s.junk++; s.junk >= uint32(limit(s.cfg.Limits.JunkCommands, defaultJunk)) {
			out, action = s.bye(out, "Too many commands without a login")
			return up, out, action
		}
		out, action = s.tagged(out, tag, text), codec.Continue
	} else {
		out, action = s.refuse(out, tag, text)
	}
	if action == codec.Continue {
		out, action = s.skipRest(line, out)
	}
	return up, out, action
}

// skipRest goes on over a refused command if line ends with a literal that comes
// unasked (RFC 7888). A synchronizing one does not come: it was not asked for.
func (s *Session) skipRest(line, out []byte) ([]byte, codec.Action) {
	size, sync, lit := literalAt(line)
	s.swallowing = lit && !sync
	if !s.swallowing {
		return out, codec.Continue
	}
	if !s.takes(size) {
		return s.bye(out, "[TOOBIG] Literal too large")
	}
	s.swallow = int32(size)
	return out, codec.Continue
}

// takes counts a literal of the present command, unless it is too large.
func (s *Session) takes(size int) bool {
	most := limit(s.cfg.Limits.Literal, defaultLiteral)
	if size > most || int(s.taken)+size > 2*most {
		return false
	}
	s.taken += int32(size)
	return true
}

// maxTag is the longest tag. RFC 9051 has no limit; clients use a few characters.
const maxTag = 64

// validTag: ASTRING-CHAR except "+" (RFC 9051 §9).
func validTag(tag []byte) bool {
	if len(tag) == 0 || len(tag) > maxTag {
		return false
	}
	for _, c := range tag {
		if c <= ' ' || c > '~' || bytes.IndexByte([]byte(`(){%*"\+`), c) >= 0 {
			return false
		}
	}
	return true
}

// literalAt reports whether line ends with the announcement of a literal, {n} or
// {n+}. A size that is no number comes back as more than any limit.
func literalAt(line []byte) (size int, sync, ok bool) {
	if len(line) == 0 || line[len(line)-1] != '}' {
		return 0, false, false
	}
	i := bytes.LastIndexByte(line, '{')
	if i < 0 {
		return 0, false, false
	}
	digits := line[i+1 : len(line)-1]
	digits, nonSync := bytes.CutSuffix(digits, []byte{'+'})
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
	return size, !nonSync, true
}
