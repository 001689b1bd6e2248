package smtp

import (
	"strconv"

	"starttlsd/codec"
)

// maxHelo is the longest name that a client may call itself (RFC 5321 §4.5.3.1.2).
const maxHelo = 255

// ehlo also resets the transaction (RFC 5321 §4.1.4).
func (s *Session) ehlo(arg, out []byte) ([]byte, codec.Action) {
	if !s.hello(arg, true) {
		return s.refuse(out, errHelo)
	}
	lines := append(make([]string, 0, 8),
		s.cfg.Hostname,
		"PIPELINING",
		"SIZE "+strconv.FormatInt(s.maxSize(), 10),
		"8BITMIME",
		"SMTPUTF8",
		"ENHANCEDSTATUSCODES",
		"CHUNKING")
	if s.cfg.TLS && s.tls == nil {
		lines = append(lines, "STARTTLS")
	}
	return codec.AppendReply(out, 250, "", lines...), codec.Continue
}

func (s *Session) heloCommand(arg, out []byte) ([]byte, codec.Action) {
	if !s.hello(arg, false) {
		return s.refuse(out, errHelo)
	}
	return codec.AppendReply(out, 250, "", s.cfg.Hostname), codec.Continue
}

// hello takes note of the client's name. What it means is not checked (RFC 5321
// §4.1.4 forbids to refuse mail for it), only that it is one printable word.
func (s *Session) hello(name []byte, extended bool) bool {
	if !isHelo(name) {
		return false
	}
	s.reset()
	s.to(ready)
	s.extended = extended
	if s.helo != string(name) {
		s.helo = string(name)
	}
	return true
}

// isHelo reports whether name is one printable word.
func isHelo(name []byte) bool {
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(name) > 0 && len(name) <= maxHelo
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (s *Session) starttls(_, out []byte) ([]byte, codec.Action) {
	switch {
	case s.tls != nil:
		return s.refuse(out, errTLSActive)
	case !s.cfg.TLS:
		return s.refuse(out, errUnsupported)
	}
	s.back = s.phase
	s.to(asked)
	return out, codec.Upgrade
}

func (s *Session) rset(_, out []byte) ([]byte, codec.Action) {
	s.reset()
	return say(out, replyOK)
}

func (s *Session) noop(_, out []byte) ([]byte, codec.Action) { return say(out, replyOK) }

func (s *Session) vrfy(_, out []byte) ([]byte, codec.Action) { return say(out, replyVRFY) }

func (s *Session) help(_, out []byte) ([]byte, codec.Action) { return say(out, replyHelp) }

func (s *Session) unsupported(_, out []byte) ([]byte, codec.Action) {
	return s.refuse(out, errUnsupported)
}

func (s *Session) quit(_, out []byte) ([]byte, codec.Action) {
	s.to(over)
	return codec.AppendReply(out, 221, "2.0.0", s.cfg.Hostname+" Bye"), codec.Close
}
