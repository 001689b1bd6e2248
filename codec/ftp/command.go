package ftp

import (
	"bytes"

	"starttlsd/codec"
)

// kind is what a command that the backend has is, to its reply.
type kind uint8

const (
	other    kind = iota
	feat          // FEAT: the list is filtered
	login         // USER, PASS, ACCT: with 230, the client has logged in
	open          // our PASV or EPSV
	transfer      // with 1xx, bytes go across
	abor          // ABOR
	rein          // REIN
	quit          // QUIT: the end
)

// command is one row of the command table.
type command struct {
	run   func(s *Session, c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action)
	kind  kind
	flags flags
}

// flags are policy, applied by command alone.
type flags uint16

const (
	noArg     flags = 1 << iota // takes no argument
	needsArg                    // takes one
	junk                        // does no work: counted before login
	beforeTLS                   // allowed in clear when TLS is required
	ours                        // answered here, not by the backend
	alone                       // answered here until there is a backend, in clear
	upload                      // a transfer from the client
	replaces                    // what is there already may be lost to it
	urgent                      // passes while there is a transfer
)

var commands = map[string]*command{
	// RFC 4217, RFC 2228
	"AUTH": {(*Session).auth, 0, needsArg | junk | beforeTLS | ours},
	"PBSZ": {(*Session).pbsz, 0, needsArg | junk | beforeTLS | ours},
	"PROT": {(*Session).prot, 0, needsArg | junk | beforeTLS | ours},
	"CCC":  {(*Session).ccc, 0, junk | beforeTLS | ours},
	// RFC 959 §4.1.1; RFC 7151
	"USER": {(*Session).pass, login, needsArg},
	"PASS": {(*Session).pass, login, 0},
	"ACCT": {(*Session).pass, login, needsArg},
	"HOST": {(*Session).host, other, needsArg | junk},
	"REIN": {(*Session).pass, rein, noArg | junk},
	"QUIT": {(*Session).quit, quit, beforeTLS | alone},
	// RFC 959 §4.1.2, RFC 2428, RFC 3659
	"PASV": {(*Session).pasv, open, noArg},
	"EPSV": {(*Session).epsv, open, 0},
	"PORT": {(*Session).port, open, needsArg},
	"EPRT": {(*Session).eprt, open, needsArg},
	"TYPE": {(*Session).pass, other, needsArg},
	"STRU": {(*Session).pass, other, needsArg},
	"MODE": {(*Session).mode, other, needsArg},
	"RETR": {(*Session).transfer, transfer, needsArg},
	"LIST": {(*Session).transfer, transfer, 0},
	"NLST": {(*Session).transfer, transfer, 0},
	"MLSD": {(*Session).transfer, transfer, 0},
	"STOR": {(*Session).transfer, transfer, needsArg | upload | replaces},
	"APPE": {(*Session).transfer, transfer, needsArg | upload | replaces},
	"STOU": {(*Session).transfer, transfer, upload},
	"ABOR": {(*Session).abor, abor, noArg | urgent},
	"STAT": {(*Session).stat, other, urgent},
	// RFC 2389
	"FEAT": {(*Session).feat, feat, noArg | junk | beforeTLS | alone},
	"NOOP": {(*Session).noop, other, junk | beforeTLS | alone},
	"HELP": {(*Session).help, other, junk | beforeTLS | alone},
	"OPTS": {(*Session).pass, other, needsArg},
}

// passed are further commands that have one reply and nothing to do with connections,
// from RFC 959, RFC 775, RFC 2640, RFC 3659 and what servers have in common.
var passed = []string{
	"CWD", "CDUP", "SMNT", "ALLO", "REST", "RNFR", "RNTO", "DELE", "RMD", "MKD", "PWD", "SITE", "SYST",
	"SIZE", "MDTM", "MLST", "MFMT", "MFCT", "MFF", "LANG", "CLNT", "CSID",
	"XCWD", "XCUP", "XRMD", "XMKD", "XPWD", "AVBL", "DSIZ", "COMB", "HASH", "RANG",
	"XCRC", "XMD5", "XSHA", "XSHA1", "XSHA256", "XSHA512", "MD5", "MMD5", "CRC",
}

func init() {
	for _, verb := range passed {
		commands[verb] = &command{(*Session).pass, other, 0}
	}
}

// foreign are the verbs of HTTP.
var foreign = map[string]bool{
	"GET": true, "POST": true, "HEAD": true, "PUT": true, "DELETE": true, "OPTIONS": true,
	"CONNECT": true, "PATCH": true, "TRACE": true, "PRI": true,
}

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
	case connecting:
		if up, out, ok := s.connected(up, out); ok {
			return 0, up, out, codec.Continue
		}
	case dialogue, moving:
	default:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	}
	reader := s.line
	skipped := reader.Skip(in)
	if !reader.Begun() {
		telnet, whole := skipTelnet(in[skipped:])
		if skipped += telnet; !whole {
			s.line = reader
			return skipped, up, out, codec.NeedMore
		}
	}
	n, line, status := reader.Next(in[skipped:], int(limit(s.cfg.Limits.Line, defaultLine)))
	if status != codec.LineMore && status != codec.LineOK && s.phase != dialogue {
		return 0, up, out, codec.Hold // our reply comes behind the backend's
	}
	action := codec.NeedMore
	switch status {
	case codec.LineMore:
	case codec.LineOK:
		up, out, action = s.command(line, up, out)
	case codec.LineBinary:
		out, action = s.close(out, "421 This is FTP")
	case codec.LineTooLong:
		out, action = s.refuse(out, "500 Line too long")
	default:
		out, action = s.refuse(out, "501 NUL, bare CR or bare LF in a command")
	}
	if action == codec.Dial || action == codec.Hold {
		return 0, up, out, action
	}
	s.line = reader
	return skipped + n, up, out, action
}

// command runs a command, unless the policy in its row refuses it.
func (s *Session) command(line, up, out []byte) ([]byte, []byte, codec.Action) {
	word, arg, _ := bytes.Cut(line, []byte{' '})
	verb := codec.Upper(word[:min(len(word), 16)])
	c := commands[verb]
	if s.phase != dialogue {
		if c == nil || c.flags&urgent == 0 || len(arg) > 0 {
			return up, out, codec.Hold
		}
		return c.run(s, c, line, arg, up, out)
	}
	why := s.gate(c, verb, arg)
	here := why != "" || c.flags&ours != 0 || c.flags&alone != 0 && s.relay == nil && !(s.secured && c.kind == feat)
	if !here && s.relay == nil {
		return up, out, codec.Dial
	}
	s.commands++
	s.known = s.known || c != nil
	if c != nil && (c.flags&junk != 0 || why == needsTLS) {
		s.junk++
	}
	switch {
	case why == "":
		return c.run(s, c, line, arg, up, out)
	case why[:3] == "421":
		out, action := s.close(out, why)
		return up, out, action
	case why == needsTLS: // a client may try, and be told
		return up, say(out, why), codec.Continue
	}
	out, action := s.refuse(out, why)
	return up, out, action
}

const needsTLS = "530 Use AUTH TLS first"

// gate is why a command is refused here, or "". It changes nothing.
func (s *Session) gate(c *command, verb string, arg []byte) string {
	switch {
	case !s.known && (c == nil || foreign[verb]):
		return "421 This is FTP" // another protocol, with an attacker's commands in it (ALPACA)
	case c == nil:
		return "500 Command not recognized"
	case !s.login && (c.flags&junk != 0 || c.kind == login) && s.junk+1 >= limit(s.cfg.Limits.JunkCommands, defaultJunk):
		return "421 Too many commands without a login"
	case !s.secured && s.cfg.RequireTLS != Optional && c.flags&beforeTLS == 0:
		return needsTLS
	case c.flags&noArg != 0 && len(arg) > 0:
		return "501 No argument is expected"
	case c.flags&needsArg != 0 && len(arg) == 0:
		return "501 An argument is expected"
	}
	return ""
}

// send passes a command on, whose reply is awaited.
func (s *Session) send(k kind, line, up []byte) []byte {
	s.to(waiting)
	s.relay.asked.Add(k)
	return append(append(up, line...), "\r\n"...)
}

func (s *Session) pass(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	return s.send(c.kind, line, up), out, codec.Continue
}

// host names no other host than the handshake did, whose certificate the client has
// seen (RFC 7151 §3.2).
func (s *Session) host(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.sni != "" && !codec.Is(arg, s.sni) {
		out, action := s.refuse(out, "504 TLS was asked for another host")
		return up, out, action
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

// mode is S alone: there the end of a file is that of its connection, which tells
// whether it is whole.
func (s *Session) mode(c *command, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	if !codec.Is(arg, "S") {
		out, action := s.refuse(out, "504 Only MODE S is possible")
		return up, out, action
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

func (s *Session) feat(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay == nil {
		return up, s.features(say(out, "211-Features")), codec.Continue
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

func (s *Session) noop(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay == nil {
		return up, say(out, "200 OK"), codec.Continue
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

func (s *Session) help(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay == nil {
		return up, say(out, "214 AUTH TLS, then USER and PASS; PBSZ 0 and PROT P for data connections under TLS"), codec.Continue
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

func (s *Session) quit(c *command, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if s.relay == nil {
		out, action := s.close(out, "221 Bye")
		return up, out, action
	}
	return s.send(c.kind, line, up), out, codec.Continue
}

// refuse answers what was not carried out, and counts it.
func (s *Session) refuse(out []byte, text string) ([]byte, codec.Action) {
	most := limit(s.cfg.Limits.BadCommands, defaultBad)
	if s.login {
		most *= 4
	}
	if s.bad++; s.bad >= most {
		return s.close(out, "421 Too many errors")
	}
	return say(out, text), codec.Continue
}

func (s *Session) close(out []byte, text string) ([]byte, codec.Action) {
	s.to(over)
	return say(out, text), codec.Close
}
