package smtp

import (
	"bytes"

	"starttlsd/codec"
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, arg, out []byte) ([]byte, codec.Action)
	in    phases // where it is in sequence
	flags flags
}

// flags are policy, applied by gate and stepCommand alone.
type flags uint16

const (
	beforeTLS flags = 1 << iota // allowed in clear when TLS is required
	junk                        // does no work: counted
	noArg                       // takes no argument
	needsArg                    // takes one
	hasChunk                    // content follows at once, also behind a refused one

	// Those of the gateway alone.

	afterHello // not before EHLO or HELO
	inMail     // belongs to a transaction
	last       // the last of a pipelined group: what follows waits for its reply (RFC 2920 §3.1)
)

var commands = map[string]*command{
	"EHLO":     {(*Session).ehlo, dialogue, beforeTLS | junk},
	"HELO":     {(*Session).heloCommand, dialogue, junk},
	"STARTTLS": {(*Session).starttls, set(fresh, ready), beforeTLS | junk | noArg},
	"MAIL":     {(*Session).mail, set(ready), needsArg},
	"RCPT":     {(*Session).rcpt, set(mail, rcpt), needsArg},
	"DATA":     {(*Session).data, set(rcpt), noArg},
	"BDAT":     {(*Session).bdat, set(rcpt, chunks), hasChunk},
	"RSET":     {(*Session).rset, dialogue, junk | noArg},
	"NOOP":     {(*Session).noop, dialogue, beforeTLS | junk},
	"VRFY":     {(*Session).vrfy, dialogue, junk | needsArg},
	"HELP":     {(*Session).help, dialogue, junk},
	"QUIT":     {(*Session).quit, dialogue, beforeTLS | noArg},
	"EXPN":     {(*Session).unsupported, dialogue, 0},
	"AUTH":     {(*Session).unsupported, dialogue, 0}, // the argument may be a password: not logged
}

// foreign are the verbs of HTTP: a browser that was made to post to this port.
var foreign = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "PATCH": true, "TRACE": true, "PRI": true,
}

// stepCommand consumes one command line.
func (s *Session) stepCommand(in, out []byte) (int, []byte, codec.Action) {
	n, line, status := s.line.Next(in, int(limit(s.cfg.Limits.Line, defaultLine)))
	action := codec.NeedMore
	switch status {
	case codec.LineMore:
	case codec.LineTooLong:
		out, action = s.refuse(out, errLineTooLong)
	case codec.LineBad:
		out, action = s.refuse(out, errLineEnds)
	case codec.LineBinary:
		out, action = s.close(out, errBinary)
	case codec.LineOK:
		var upper [len("STARTTLS")]byte
		verb, arg := split(line, upper[:0])
		c := commands[string(verb)]
		s.commands++
		if c == nil {
			out, action = s.unknown(verb, out)
		} else {
			out, action = s.dispatch(c, arg, out)
		}
	}
	return n, out, action
}

// split takes a command line apart. The verb comes back in upper case in buf; one
// that is longer than any is cut, and not found because no verb is so long.
func split(line, buf []byte) (verb, arg []byte) {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	if len(word) > cap(buf) {
		return nil, nil
	}
	for _, c := range word {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf = append(buf, c)
	}
	return buf, bytes.Trim(arg, " \t") // trailing white space is tolerated (RFC 5321 §4.1.1)
}

// unknown answers a verb that is not in the table. Before EHLO it may be another
// protocol, with commands of an attacker's in its body: the end (ALPACA).
func (s *Session) unknown(verb, out []byte) ([]byte, codec.Action) {
	if s.phase == fresh && (!s.known || foreign[string(verb)]) {
		return s.close(out, errNotSMTP)
	}
	if s.mustSecure() {
		return s.refuse(out, errTLSRequired)
	}
	return s.refuse(out, errUnknown)
}

// dispatch runs a command, unless the gate refuses it.
func (s *Session) dispatch(c *command, arg, out []byte) ([]byte, codec.Action) {
	s.known = true
	r := s.gate(c, arg)
	switch {
	case c.flags&hasChunk != 0:
		s.answer = r // after the content
		return c.run(s, arg, out)
	case r != nil:
		return s.refuse(out, r)
	default:
		return c.run(s, arg, out)
	}
}

// gate applies the policy in a command's row. It returns why not, or nil.
func (s *Session) gate(c *command, arg []byte) *reply {
	if c.flags&junk != 0 {
		if s.idled(&s.cfg.Limits) {
			return closeJunk
		}
	}
	switch {
	case s.mustSecure() && c.flags&beforeTLS == 0:
		return errTLSRequired
	case s.phase == ready && c.flags&beforeTLS == 0 && s.begun >= limit(s.cfg.Limits.Messages, defaultMessages):
		return closeMessages // also to RSET, with which clients see if a connection can be used again
	case c.flags&noArg != 0 && len(arg) > 0:
		return errNoArgument
	case c.flags&needsArg != 0 && len(arg) == 0:
		return errArgument
	case !c.in.has(s.phase):
		return errSequence[s.phase]
	default:
		return nil
	}
}

// mustSecure reports whether TLS is required and not there yet (RFC 3207 §4).
func (s *Session) mustSecure() bool { return s.cfg.RequireTLS && s.tls == nil }
