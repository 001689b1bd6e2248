package smtp

import (
	"bytes"

	"starttlsd/codec"
)

// gatewayCommand is one row of the gateway's command table. What is not in it does
// not reach the backend: XCLIENT and XFORWARD from a client are lies.
type gatewayCommand struct {
	own   func(g *Gateway, arg, out []byte) ([]byte, codec.Action) // the answer without a backend; nil: one is needed
	kind  kind                                                     // what its reply means
	flags flags
}

var gatewayCommands = map[string]*gatewayCommand{
	"EHLO":     {(*Gateway).ehlo, toEHLO, beforeTLS | junk | last},
	"LHLO":     {(*Gateway).ehlo, toEHLO, beforeTLS | junk | last},
	"HELO":     {(*Gateway).heloCommand, toHELO, junk | last},
	"STARTTLS": {(*Gateway).starttls, toOther, beforeTLS | junk | noArg},
	"MAIL":     {nil, toMAIL, needsArg | afterHello},
	"RCPT":     {nil, toRCPT, needsArg | afterHello | inMail},
	"DATA":     {nil, toDATA, noArg | afterHello | inMail | last},
	"BDAT":     {nil, toChunk, hasChunk | afterHello | inMail},
	"RSET":     {(*Gateway).ok, toRSET, junk | noArg},
	"NOOP":     {(*Gateway).ok, toOther, beforeTLS | junk},
	"VRFY":     {nil, toOther, junk | needsArg},
	"EXPN":     {nil, toOther, junk | needsArg},
	"ETRN":     {nil, toOther, junk | needsArg | afterHello},
	"HELP":     {(*Gateway).help, toOther, junk},
	"AUTH":     {nil, toAUTH, junk | needsArg | afterHello | last},
	"QUIT":     {(*Gateway).quit, toQUIT, beforeTLS | noArg | last},
}

// frame is what the client has said.
type frame struct {
	more   bool            // not all of it is there
	c      *gatewayCommand // nil: none that is known
	verb   string
	arg    []byte
	why    *reply // it is refused
	closes bool   // and the refusal is the last reply
	size   int64  // of BDAT
	last   bool
}

// read takes the next command from the front of in. But for the position in the
// line nothing changes, so that a frame which has to wait can be read again.
func (g *Gateway) read(in []byte) (n int, f frame) {
	n, line, status := g.line.Next(in, int(limit(g.cfg.Limits.Line, defaultLine)))
	switch status {
	case codec.LineMore:
		f.more = true
	case codec.LineTooLong:
		f.why = errLineTooLong
	case codec.LineBad:
		f.why = errLineEnds
	case codec.LineBinary:
		f.why, f.closes = errBinary, true
	case codec.LineOK:
		var upper [len("STARTTLS")]byte
		verb, arg := split(line, upper[:0])
		f.c, f.arg = gatewayCommands[string(verb)], arg
		if f.c != nil && string(verb) == "LHLO" && !g.cfg.LMTP {
			f.c = nil
		}
		f.verb = string(verb)
		if f.c == nil {
			g.unknown(&f)
		} else {
			g.gate(&f)
		}
	}
	return n, f
}

// unknown refuses a verb that is not in the table. Before EHLO it may be another
// protocol, with commands of an attacker's in its body: the end (ALPACA).
func (g *Gateway) unknown(f *frame) {
	switch {
	case g.hello == noHello && (!g.known || foreign[f.verb]):
		f.why, f.closes = errNotSMTP, true
	case g.mustSecure():
		f.why = errTLSRequired
	default:
		f.why = errUnknown
	}
}

// gate applies the policy in a command's row.
func (g *Gateway) gate(f *frame) {
	c := f.c
	empty := false // a chunk that is nothing
	if c.flags&hasChunk != 0 {
		var ok bool
		if f.size, f.last, ok = parseChunk(f.arg); !ok {
			f.why, f.closes = errArgument, true // where it ends is not known
			return
		}
		empty = f.size == 0 && !f.last
	}
	if (empty || c.flags&junk != 0) && g.junk+1 >= limit(g.cfg.Limits.JunkCommands, defaultJunk) {
		f.why, f.closes = closeJunk, true
		return
	}
	f.why = g.refusal(f)
	if f.why != nil && f.size > maxDropped {
		f.closes = true
	}
}

// refusal is why a command is not carried out, or nil.
func (g *Gateway) refusal(f *frame) *reply {
	c := f.c
	switch {
	case c.kind == toAUTH && !g.secured:
		return errSecret
	case g.mustSecure() && c.flags&beforeTLS == 0:
		return errTLSRequired
	case c.kind.greets() && g.cfg.LMTP && f.verb != "LHLO":
		return errUnknown
	case c.kind.greets() && !isHelo(f.arg):
		return errHelo
	case c.flags&noArg != 0 && len(f.arg) > 0:
		return errNoArgument
	case c.flags&needsArg != 0 && len(f.arg) == 0:
		return errArgument
	case hasControl(f.arg):
		return errControl
	case c.flags&afterHello != 0 && g.hello == noHello:
		return errSequence[fresh]
	case c.flags&inMail != 0 && g.link == nil:
		return errSequence[ready]
	case c.kind == toAUTH && !isMechanism(f.arg):
		return errMechanism
	case f.verb == "STARTTLS":
		return g.noUpgrade()
	case c.kind == toChunk && !g.link.chunking:
		return errChunking // the backend would take the content for commands
	case c.kind == toChunk && g.cfg.LMTP && g.link.failed:
		return errChunkFailed // with how many replies is not said anywhere
	default:
		return nil
	}
}

// noUpgrade is why STARTTLS is refused, or nil.
func (g *Gateway) noUpgrade() *reply {
	switch {
	case g.secured:
		return errTLSActive
	case !g.cfg.TLS:
		return errUnsupported
	case g.link != nil && g.link.inMail:
		return errSequence[rcpt]
	default:
		return nil
	}
}

// count takes note of a frame that is consumed.
func (g *Gateway) count(f *frame) {
	g.commands++
	if f.c == nil {
		return
	}
	g.known = true
	if f.c.flags&junk != 0 || f.c.flags&hasChunk != 0 && f.size == 0 && !f.last {
		g.junk++
	}
}

// mustSecure reports whether TLS is required and not there yet (RFC 3207 §4).
func (g *Gateway) mustSecure() bool { return g.cfg.RequireTLS && !g.secured }

// hasControl reports whether there is in p what no argument needs, and what some
// server might take for an end of line.
func hasControl(p []byte) bool {
	return bytes.ContainsFunc(p, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// ehlo answers in clear, with what is true whatever the backend is.
func (g *Gateway) ehlo(arg, out []byte) ([]byte, codec.Action) {
	g.helo, g.hello = string(arg), extended
	lines := append(make([]string, 0, 4), g.cfg.Hostname, "PIPELINING", "ENHANCEDSTATUSCODES")
	if g.cfg.TLS {
		lines = append(lines, "STARTTLS")
	}
	return codec.AppendReply(out, 250, "", lines...), codec.Continue
}

func (g *Gateway) heloCommand(arg, out []byte) ([]byte, codec.Action) {
	g.helo, g.hello = string(arg), basic
	return codec.AppendReply(out, 250, "", g.cfg.Hostname), codec.Continue
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (g *Gateway) starttls(_, out []byte) ([]byte, codec.Action) {
	g.to(asking)
	return out, codec.Upgrade
}

func (g *Gateway) ok(_, out []byte) ([]byte, codec.Action) { return say(out, replyOK) }

func (g *Gateway) help(_, out []byte) ([]byte, codec.Action) { return say(out, replyHelp) }

func (g *Gateway) quit(_, out []byte) ([]byte, codec.Action) {
	g.to(done)
	return codec.AppendReply(out, 221, "2.0.0", g.cfg.Hostname+" Bye"), codec.Close
}
