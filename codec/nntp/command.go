package nntp

import (
	"bytes"

	"starttlsd/codec"
)

// kind is what a command that the backend has is, to its reply.
type kind uint8

const (
	other    kind = iota // a line, or with some codes a list
	group                // GROUP: 211 is one line
	capable              // CAPABILITIES: the list is filtered
	post                 // POST, IHAVE: 340 or 335 asks for the article
	article              // the end of an article
	streamed             // that of TAKETHIS
	mode                 // MODE READER
	login                // AUTHINFO
	quit                 // the end
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action)
	kind  kind
	flags flags
}

// flags are policy, applied by command alone.
type flags uint8

const (
	noArg     flags = 1 << iota // takes no argument
	needsArg                    // takes one
	junk                        // does no work: counted
	beforeTLS                   // allowed in clear when TLS is required
	ours                        // answered here, not by the backend
	alone                       // answered here until there is a backend
	secret                      // not in clear
	hasBody                     // an article follows at once, also behind a refused one
)

var commands = map[string]*command{
	"CAPABILITIES": {(*Session).capabilities, capable, beforeTLS | junk | alone},
	"STARTTLS":     {(*Session).starttls, 0, noArg | beforeTLS | junk | ours},
	"QUIT":         {(*Session).quit, quit, beforeTLS | alone},
	"HELP":         {(*Session).help, other, beforeTLS | junk | ours},
	"MODE":         {(*Session).mode, mode, needsArg | junk},
	"AUTHINFO":     {(*Session).wait, login, needsArg | secret},
	"POST":         {(*Session).wait, post, noArg},
	"IHAVE":        {(*Session).wait, post, needsArg},
	"CHECK":        {(*Session).pass, other, needsArg},
	"TAKETHIS":     {(*Session).takethis, streamed, hasBody},
	"GROUP":        {(*Session).pass, group, needsArg},
	"LISTGROUP":    {(*Session).pass, other, 0},
	"LAST":         {(*Session).pass, other, noArg},
	"NEXT":         {(*Session).pass, other, noArg},
	"ARTICLE":      {(*Session).pass, other, 0},
	"HEAD":         {(*Session).pass, other, 0},
	"BODY":         {(*Session).pass, other, 0},
	"STAT":         {(*Session).pass, other, 0},
	"DATE":         {(*Session).pass, other, junk},
	"NEWGROUPS":    {(*Session).pass, other, needsArg},
	"NEWNEWS":      {(*Session).pass, other, needsArg},
	"LIST":         {(*Session).pass, other, 0},
	"OVER":         {(*Session).pass, other, 0},
	"HDR":          {(*Session).pass, other, needsArg},
	"XOVER":        {(*Session).pass, other, 0}, // RFC 2980
	"XHDR":         {(*Session).pass, other, needsArg},
	"XPAT":         {(*Session).pass, other, needsArg},
	"SLAVE":        {(*Session).pass, other, noArg | junk},
}

// foreign are the verbs of HTTP, but POST, which is one of ours without argument.
var foreign = map[string]bool{
	"GET": true, "POST": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "PATCH": true, "TRACE": true, "PRI": true,
}

// maxAnswer is the longest SASL response, with its CRLF (RFC 4643 §2.4 has no limit;
// RFC 4954 §4 has this one).
const maxAnswer = 12288

// Step implements codec.Session.
func (s *Session) Step(in, out []byte) (int, []byte, codec.Action) {
	n, _, out, action := s.Forward(in, nil, out)
	if action == codec.Content { // of a refused TAKETHIS, which is no progress
		action = codec.NeedMore
	}
	return n, out, action
}

// Forward implements codec.Relayed.
func (s *Session) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	switch s.phase {
	case waiting:
		return 0, up, out, codec.Hold
	case content, swallow:
		return s.stepContent(in, up, out)
	case dialogue, answer:
	default:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	}
	most := int(limit(s.cfg.Limits.Line, defaultLine))
	if s.phase == answer {
		most = maxAnswer
	}
	reader := s.line
	n, line, status := reader.Next(in, most)
	if status != codec.LineMore && status != codec.LineOK && s.Outstanding() && s.phase != answer {
		return 0, up, out, codec.Hold // our reply comes behind the backend's
	}
	action := codec.NeedMore
	switch {
	case status == codec.LineMore:
	case s.phase == answer && status == codec.LineOK && codec.IsSASLResponse(line):
		up, action = append(append(up, line...), "\r\n"...), codec.Continue
		s.to(waiting)
	case status == codec.LineBinary, s.phase == answer:
		out, action = s.close(out, "400 This is NNTP, and no SASL response")
	case status == codec.LineTooLong:
		out, action = s.refuse(out, "501 Line too long")
	case status == codec.LineBad:
		out, action = s.refuse(out, "501 NUL, bare CR or bare LF in a command")
	default:
		up, out, action = s.command(line, up, out)
	}
	if action == codec.Dial || action == codec.Hold {
		return 0, up, out, action
	}
	s.line = reader
	return n, up, out, action
}

// command runs a command, unless the policy in its row refuses it.
func (s *Session) command(line, up, out []byte) ([]byte, []byte, codec.Action) {
	word, arg := cutWord(line)
	verb := codec.Upper(word[:min(len(word), 16)])
	c := commands[verb]
	why := s.gate(c, verb, arg)
	here := why != "" || c.flags&ours != 0 || c.flags&alone != 0 && s.relay == nil && !(s.secured && c.kind == capable)
	switch {
	case here && s.Outstanding(), !here && s.relay != nil && s.relay.asked.Full():
		return up, out, codec.Hold
	case !here && s.relay == nil:
		return up, out, codec.Dial
	}
	s.commands++
	if c != nil && c.flags&junk != 0 {
		s.junk++
	}
	if why == "" {
		s.known = true
		return c.run(s, c, line, arg, up, out)
	}
	if c != nil && c.flags&hasBody != 0 {
		s.body = &body{why: why}
		s.to(swallow)
		return up, out, codec.Continue
	}
	s.known = s.known || c != nil
	var action codec.Action
	if why[:3] == "400" {
		out, action = s.close(out, why)
	} else {
		out, action = s.refuse(out, why)
	}
	return up, out, action
}

// gate is why a command is refused here, or "". It changes nothing.
func (s *Session) gate(c *command, verb string, arg []byte) string {
	inClear := !s.secured
	switch {
	case !s.known && (c == nil || foreign[verb] && len(arg) > 0):
		return "400 This is NNTP" // another protocol, with an attacker's commands in it (ALPACA)
	case c == nil:
		return "500 Command not recognized"
	case (c.flags&junk != 0 || c.kind == login) && s.junk+1 >= limit(s.cfg.Limits.JunkCommands, defaultJunk):
		return "400 Too many commands without an article"
	case inClear && (c.flags&secret != 0 || s.cfg.RequireTLS && c.flags&beforeTLS == 0): // RFC 4643 §2.3.2
		return "483 Use STARTTLS first"
	case c.flags&noArg != 0 && len(arg) > 0:
		return "501 No argument is expected"
	case c.flags&needsArg != 0 && len(arg) == 0:
		return "501 An argument is expected"
	case c.kind == login && !authinfo(arg):
		return "501 USER, PASS or SASL with a mechanism that is offered is expected"
	case c.kind == streamed && !messageID(arg):
		return "501 A message-id is expected"
	case c.kind == streamed && (s.relay == nil || !s.relay.streaming):
		return "502 MODE STREAM comes first"
	case c.kind == mode && !codec.Is(arg, "READER") && !codec.Is(arg, "STREAM"):
		return "501 READER or STREAM is expected"
	}
	return ""
}

// cutWord cuts off the first word (RFC 3977 §3.1).
func cutWord(line []byte) (word, rest []byte) {
	i := bytes.IndexAny(line, " \t")
	if i < 0 {
		return line, nil
	}
	return line[:i], bytes.Trim(line[i:], " \t")
}

// messageID reports whether arg is one, and nothing else (RFC 3977 §3.6). A server does
// not look for an article behind a command that is none to it.
func messageID(arg []byte) bool {
	return len(arg) > 2 && len(arg) <= 250 && arg[0] == '<' && bytes.IndexByte(arg, '>') == len(arg)-1 &&
		!bytes.ContainsAny(arg, " \t")
}

// authinfo reports whether arg is that of a login that can pass (RFC 4643).
func authinfo(arg []byte) bool {
	words := bytes.FieldsFunc(arg, func(r rune) bool { return r == ' ' || r == '\t' })
	if len(words) < 2 {
		return false
	}
	switch codec.Upper(words[0]) {
	case "USER", "PASS":
		return true
	case "SASL":
		return codec.PassesSASL(words[1])
	}
	return false
}

// pass sends the command as it is.
func (s *Session) pass(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	s.relay.asked.Add(c.kind)
	return append(append(up, line...), "\r\n"...), out, codec.Continue
}

// wait sends a command whose reply says what the client may send next.
func (s *Session) wait(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	s.to(waiting)
	return s.pass(c, line, arg, up, out)
}

func (s *Session) mode(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	s.relay.stream = codec.Is(arg, "STREAM")
	return s.wait(c, line, arg, up, out)
}

// takethis is for a backend that streams, by its own word. Any other would take the
// article that comes at once for commands.
func (s *Session) takethis(_ *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	s.body = &body{kind: streamed, refusal: "439 " + string(arg)}
	s.to(content)
	return append(append(up, line...), "\r\n"...), out, codec.Continue
}

// capabilities is answered here until there is a backend, in clear.
func (s *Session) capabilities(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay != nil {
		return s.pass(c, line, arg, up, out)
	}
	out = say(out, "101 Capability list follows")
	out = say(out, "VERSION 2")
	out = say(out, "IMPLEMENTATION starttlsd")
	if !s.cfg.RequireTLS {
		out = say(out, "MODE-READER")
	}
	if s.cfg.TLS {
		out = say(out, "STARTTLS")
	}
	return up, say(out, "."), codec.Continue
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (s *Session) starttls(_ *command, _, _, up, out []byte) ([]byte, []byte, codec.Action) {
	why := "580 TLS is not offered"
	switch {
	case s.secured:
		why = "502 TLS is active already" // RFC 4642 §2.2.2
	case s.cfg.TLS:
		s.to(asked)
		return up, out, codec.Upgrade
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

func (s *Session) quit(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay != nil {
		return s.wait(c, line, arg, up, out)
	}
	out, action := s.close(out, "205 Bye")
	return up, out, action
}

func (s *Session) help(_ *command, _, _, up, out []byte) ([]byte, []byte, codec.Action) {
	out = say(out, "100 Commands follow")
	out = say(out, "CAPABILITIES STARTTLS MODE AUTHINFO LIST GROUP LISTGROUP ARTICLE HEAD BODY STAT OVER HDR POST QUIT")
	return up, say(out, "."), codec.Continue
}

// refuse answers what was not carried out, and counts it: what cannot be meant
// towards BadCommands, what may be the tail of a pipeline towards JunkCommands.
func (s *Session) refuse(out []byte, text string) ([]byte, codec.Action) {
	if text[:2] == "50" {
		if s.bad++; s.bad >= limit(s.cfg.Limits.BadCommands, defaultBad) {
			return s.close(out, "400 Too many errors")
		}
	} else if s.junk++; s.junk >= limit(s.cfg.Limits.JunkCommands, defaultJunk) {
		return s.close(out, "400 Too many commands without an article")
	}
	return say(out, text), codec.Continue
}

func (s *Session) close(out []byte, text string) ([]byte, codec.Action) {
	s.to(over)
	return say(out, text), codec.Close
}
