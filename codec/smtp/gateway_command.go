package smtp

import (
	"bytes"
	"strconv"

	"starttlsd/codec"
)

// kind is what a command that the backend has is, to its reply.
type kind uint8

const (
	kOther   kind = iota
	kHello        // a list of extensions may come, and no transaction is left
	kReset        // no transaction is left
	kMail         // a transaction may have begun
	kRcpt         // a recipient may be accepted
	kData         // content may be asked for
	kMessage      // the end of a message: with LMTP one reply for each recipient
	kAuth         // a SASL exchange
	kQuit         // the end
)

// passed is one row of the gateway's command table.
type passed struct {
	run   func(g *Gateway, c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action)
	kind  kind
	flags flags
}

// Flags of the gateway besides those of the receiver.
const (
	ours     flags = 1 << (iota + 8) // answered here, not by the backend
	dials                            // may be the first for the backend, in clear as well
	isHello                          // may be the first for the backend under TLS
	onlyLMTP                         // is not in SMTP
	notLMTP                          // is not in LMTP (RFC 2033 §4.1)
	secret                           // not in clear
)

var gatewayCommands = map[string]*passed{
	"EHLO":     {(*Gateway).hello, kHello, beforeTLS | junk | needsArg | isHello | notLMTP},
	"HELO":     {(*Gateway).hello, kHello, junk | needsArg | isHello | notLMTP},
	"LHLO":     {(*Gateway).hello, kHello, beforeTLS | junk | needsArg | isHello | onlyLMTP},
	"STARTTLS": {(*Gateway).starttls, 0, ours | beforeTLS | junk | noArg},
	"MAIL":     {(*Gateway).pass, kMail, needsArg | dials},
	"RCPT":     {(*Gateway).pass, kRcpt, needsArg},
	"DATA":     {(*Gateway).data, kData, noArg},
	"BDAT":     {(*Gateway).bdat, kOther, 0},
	"RSET":     {(*Gateway).pass, kReset, junk | noArg},
	"NOOP":     {(*Gateway).pass, kOther, beforeTLS | junk},
	"VRFY":     {(*Gateway).pass, kOther, junk | needsArg | dials},
	"EXPN":     {(*Gateway).pass, kOther, junk | needsArg | dials},
	"HELP":     {(*Gateway).pass, kOther, junk | dials},
	"ETRN":     {(*Gateway).pass, kOther, junk | needsArg | dials},
	"AUTH":     {(*Gateway).auth, kAuth, needsArg | secret},
	"QUIT":     {(*Gateway).quit, kQuit, beforeTLS | noArg},
}

// Step implements codec.Session.
func (g *Gateway) Step(in, out []byte) (int, []byte, codec.Action) {
	n, _, out, action := g.Forward(in, nil, out)
	return n, out, action
}

// Forward implements codec.Relayed.
func (g *Gateway) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	switch g.phase {
	case gWaiting:
		return 0, up, out, codec.Hold
	case gContent, gSwallow:
		return g.stepContent(in, up, out)
	case gChunk:
		return g.stepChunk(in, up, out)
	case gFresh, gReady, gAnswer:
	default:
		return len(in), up, out, codec.Close // nothing in plaintext after the go-ahead
	}
	most := int(limit(g.cfg.Limits.Line, defaultLine))
	if g.phase == gAnswer {
		most = maxAnswer
	}
	reader := g.line
	n, line, status := reader.Next(in, most)
	if status != codec.LineMore && status != codec.LineOK && g.Outstanding() {
		return 0, up, out, codec.Hold // our reply comes behind the backend's
	}
	action := codec.NeedMore
	switch {
	case status == codec.LineMore:
	case status == codec.LineBinary:
		out, action = g.close(out, errBinary)
	case status == codec.LineTooLong && g.phase != gAnswer:
		out, action = g.refuse(out, errLineTooLong)
	case status == codec.LineBad && g.phase != gAnswer:
		out, action = g.refuse(out, errLineEnds)
	case status != codec.LineOK:
		out, action = g.close(out, errLineEnds)
	case g.phase == gAnswer:
		up, action = append(append(up, line...), crlf...), codec.Continue
		g.to(gWaiting)
	default:
		up, out, action = g.command(line, up, out)
	}
	if action == codec.Dial || action == codec.Hold {
		return 0, up, out, action
	}
	g.line = reader
	return n, up, out, action
}

var crlf = []byte("\r\n")

// maxAnswer is the longest SASL response, with its CRLF (RFC 4954 §4).
const maxAnswer = 12288

// command runs a command, unless the policy in its row refuses it.
func (g *Gateway) command(line, up, out []byte) ([]byte, []byte, codec.Action) {
	var upper [len("STARTTLS")]byte
	verb, arg := split(line, upper[:0])
	c := gatewayCommands[string(verb)]
	why := g.gate(c, verb, arg)
	relayed := why == nil && g.relay != nil && c.flags&ours == 0
	switch {
	case !relayed && g.Outstanding(), relayed && g.relay.asked.Full():
		return up, out, codec.Hold
	case why == nil && g.needsBackend(c):
		if c.flags&isHello != 0 {
			g.helo = string(arg) // for XCLIENT
		}
		return up, out, codec.Dial
	}
	g.commands++
	g.known = g.known || c != nil
	if c != nil && c.flags&junk != 0 {
		g.junk++
	}
	if why == nil {
		return c.run(g, c, line, arg, up, out)
	}
	var action codec.Action
	switch why {
	case errNotSMTP, errBinary:
		out, action = g.close(out, why)
	default:
		out, action = g.refuse(out, why)
	}
	return up, out, action
}

// gate is why a command is refused here, or nil. It changes nothing.
func (g *Gateway) gate(c *passed, verb, arg []byte) *reply {
	inClear := !g.secured
	switch {
	case c == nil && g.phase == gFresh && (!g.known || foreign[string(verb)]):
		return errNotSMTP // it may be another protocol, with an attacker's commands in it (ALPACA)
	case c == nil && inClear && g.cfg.RequireTLS:
		return errTLSRequired
	case c == nil, g.cfg.LMTP && c.flags&notLMTP != 0, !g.cfg.LMTP && c.flags&onlyLMTP != 0:
		return errUnknown
	case c.flags&junk != 0 && g.junk+1 >= limit(g.cfg.Limits.JunkCommands, defaultJunk):
		return closeJunk
	case inClear && c.flags&secret != 0:
		return errSecret
	case inClear && g.cfg.RequireTLS && c.flags&beforeTLS == 0:
		return errTLSRequired
	case c.flags&noArg != 0 && len(arg) > 0:
		return errNoArgument
	case c.flags&needsArg != 0 && len(arg) == 0:
		return errArgument
	case c.flags&isHello != 0 && !validHelo(arg):
		return errHelo
	case g.phase == gFresh && c.flags&(isHello|beforeTLS|junk) == 0:
		return errSequence[fresh]
	case g.relay == nil && !g.needsBackend(c) && (c.kind == kRcpt || c.kind == kData || c.kind == kAuth):
		return errSequence[ready]
	}
	return nil
}

// needsBackend reports whether a backend has to be dialled for the command.
func (g *Gateway) needsBackend(c *passed) bool {
	switch {
	case g.relay != nil:
		return false
	case g.secured:
		return c.flags&isHello != 0
	default:
		return g.phase == gReady && c.flags&dials != 0
	}
}

// pass sends the command as it is. NOOP and RSET need no backend.
func (g *Gateway) pass(c *passed, line, _, up, out []byte) ([]byte, []byte, codec.Action) {
	if g.relay == nil {
		out, action := say(out, replyOK)
		return up, out, action
	}
	g.relay.asked.Add(c.kind)
	return append(append(up, line...), crlf...), out, codec.Continue
}

// hello is answered here only in clear, when there is no backend yet.
func (g *Gateway) hello(c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	g.helo, g.extended = string(arg), line[0]|' ' != 'h'
	if g.phase == gFresh {
		g.to(gReady)
	}
	if g.relay != nil { // nothing may be pipelined behind it (RFC 2920 §3.1)
		g.to(gWaiting)
		return g.pass(c, line, arg, up, out)
	}
	lines := []string{g.cfg.Hostname}
	if g.extended {
		lines = append(lines, "PIPELINING", "ENHANCEDSTATUSCODES")
		if g.cfg.TLS {
			lines = append(lines, "STARTTLS")
		}
	}
	return up, codec.AppendReply(out, 250, "", lines...), codec.Continue
}

// starttls only asks: the engine decides, and calls GoAhead or Refuse.
func (g *Gateway) starttls(_ *passed, _, _, up, out []byte) ([]byte, []byte, codec.Action) {
	var why *reply
	switch {
	case g.secured:
		why = errTLSActive
	case !g.cfg.TLS:
		why = errUnsupported
	case g.relay != nil && g.relay.mail:
		why = errSequence[mail]
	default:
		g.back = g.phase
		g.to(gAsked)
		return up, out, codec.Upgrade
	}
	out, action := g.refuse(out, why)
	return up, out, action
}

func (g *Gateway) data(c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	g.to(gWaiting)
	return g.pass(c, line, arg, up, out)
}

func (g *Gateway) auth(c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	g.to(gWaiting)
	return g.pass(c, line, arg, up, out)
}

func (g *Gateway) quit(c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	if g.relay == nil {
		g.to(gOver)
		return up, codec.AppendReply(out, 221, "2.0.0", g.cfg.Hostname+" Bye"), codec.Close
	}
	g.to(gWaiting)
	return g.pass(c, line, arg, up, out)
}

// bdat passes a chunk on, with its size in the one form that there is no doubt about.
// Where it is not known how much follows, the connection ends: content is never read
// as commands.
func (g *Gateway) bdat(c *passed, line, arg, up, out []byte) ([]byte, []byte, codec.Action) {
	size, last, ok := parseChunk(arg)
	if !ok || g.relay == nil {
		why := errArgument
		if ok {
			why = errSequence[fresh]
		}
		out, action := g.close(out, why)
		return up, out, action
	}
	k := kOther
	up = strconv.AppendInt(append(up, "BDAT "...), size, 10)
	if last {
		k = kMessage
		up = append(up, " LAST"...)
	}
	g.relay.asked.Add(k)
	if g.relay.left = size; size > 0 {
		g.to(gChunk)
	}
	return append(up, crlf...), out, codec.Continue
}

func (g *Gateway) stepChunk(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	n := int(min(int64(len(in)), g.relay.left))
	action := codec.Content
	if g.relay.left -= int64(n); g.relay.left == 0 {
		g.to(gReady)
		action = codec.Continue
	}
	return n, append(up, in[:n]...), out, action
}

// maxSwallowed is how much of a message is consumed that is refused.
const maxSwallowed = 64 << 20

// stepContent passes content on, as long as it is such that the next server cannot
// take it for two messages. From the first fault on it gets nothing more, not even
// the end, so that what it has is never delivered.
func (g *Gateway) stepContent(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	r := g.relay
	n, done := r.dot.Skip(in)
	if g.phase == gContent && r.dot.Flaws()&^codec.LongLine != 0 {
		g.to(gSwallow)
	}
	switch {
	case g.phase == gContent && done:
		r.asked.Add(kMessage)
		g.to(gReady)
		return n, append(up, in[:n]...), out, codec.Continue
	case g.phase == gContent:
		return n, append(up, in[:n]...), out, codec.Content
	}
	if r.left += int64(n); !done && r.left < maxSwallowed {
		return n, up, out, codec.Content
	}
	out, action := g.close(out, errLineEnd)
	return n, up, out, action
}

// validHelo: one printable word. What it means is the backend's business.
func validHelo(name []byte) bool {
	return len(name) > 0 && len(name) <= maxHelo && bytes.IndexFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}
