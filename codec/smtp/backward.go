package smtp

import "starttlsd/codec"

const (
	maxReplyLine = 2 << 10  // of the backend, with its CRLF (RFC 5321 §4.5.3.1.5 asks for 512)
	maxReplySize = 16 << 10 // all lines of a reply
)

// Reply implements codec.Relayed. A frame is a line.
func (g *Gateway) Reply(in, out []byte) (int, []byte, codec.Action) {
	l := g.link
	if g.stage == done {
		return len(in), out, codec.Close
	}
	n, line, status := l.line.Next(in, maxReplyLine)
	if status == codec.LineMore {
		return n, out, codec.NeedMore
	}
	code, more, ok := parseReply(line)
	if status != codec.LineOK || !ok || l.code != 0 && l.code != code {
		out, action := g.broken(out, "a reply line of the backend is malformed")
		return n, out, action
	}
	if l.octets += len(line); l.octets > maxReplySize {
		out, action := g.broken(out, "a reply of the backend is too long")
		return n, out, action
	}
	switch {
	case code == 421: // may come at any time (RFC 5321 §3.8)
	case l.waiting.Len() == 0:
		out, action := g.broken(out, "the backend has spoken unasked")
		return n, out, action
	case !l.waiting.First().allows(code):
		out, action := g.broken(out, "a reply of the backend does not belong to its command")
		return n, out, action
	}
	if code/100 == 2 && l.waiting.First().greets() {
		out = g.collect(string(line), more, out)
	} else {
		out = append(append(out, line...), "\r\n"...)
		l.said = true
	}
	if l.code = code; more {
		return n, out, codec.Content
	}
	l.code, l.octets, l.said = 0, 0, false
	return n, out, g.replied(code)
}

// parseReply takes a reply line apart (RFC 5321 §4.2). No text is as good as a
// space without any.
func parseReply(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = 10*code + int(c-'0')
	}
	if len(line) == 3 {
		return code, false, true
	}
	return code, line[3] == '-', line[3] == '-' || line[3] == ' '
}

// collect takes a line of the good reply to EHLO or HELO. All of it is said at its
// end, when it is known what the last line is that the client gets.
func (g *Gateway) collect(line string, more bool, out []byte) []byte {
	l := g.link
	switch {
	case l.code == 0: // the backend's name for itself
		l.list = append(l.list[:0], g.cfg.Hostname)
		l.pipelining, l.chunking = false, false
	case *l.waiting.First() == toEHLO && len(line) > len("250-"):
		l.offered(line[len("250-"):])
		if text := offer(line[len("250-"):], g.secured); text != "" {
			l.list = append(l.list, text)
		}
	}
	if more {
		return out
	}
	if *l.waiting.First() == toEHLO && g.cfg.TLS && !g.secured {
		l.list = append(l.list, "STARTTLS")
	}
	out = codec.AppendReply(out, 250, "", l.list...)
	l.list = nil
	return out
}

// replied draws the consequences of a whole reply.
func (g *Gateway) replied(code int) codec.Action {
	l := g.link
	if code == 421 {
		g.to(done)
		return codec.Close
	}
	good, k := code/100 == 2, *l.waiting.First()
	if k.ends() && g.another(good) {
		return codec.Continue
	}
	l.waiting.Done()
	l.held = l.held && l.waiting.Len() > 0
	switch {
	case k == toQUIT:
		g.to(done)
		return codec.Close
	case code == 354:
		l.dot = codec.Dot{}
		g.to(passingData)
	case code == 334:
		g.to(answering)
	case k == toChunk && !good:
		l.failed = true
	case k.ends():
		l.forget()
	case !good:
	case k.greets():
		g.helo, g.hello = l.name, l.hello
		l.forget()
	case k == toMAIL:
		l.forget()
		l.inMail = true
	case k == toRCPT:
		l.accepted++
	case k == toRSET:
		l.forget()
	case k == toAUTH:
		g.junk = 0
	}
	return codec.Continue
}

// another takes note of a reply to a message, and reports whether there are more:
// LMTP has one for each recipient, or one if there is none (RFC 2033 §4.2).
func (g *Gateway) another(good bool) bool {
	l := g.link
	l.answered++
	if good {
		g.junk = 0
		if !l.delivered {
			g.messages++
		}
		l.delivered = true
	}
	if g.cfg.LMTP && l.answered < l.accepted {
		return true
	}
	l.answered, l.delivered = 0, false
	return false
}

// broken ends a session whose backend cannot be understood.
func (g *Gateway) broken(out []byte, fault string) ([]byte, codec.Action) {
	g.link.fault = fault
	return g.Refuse(codec.Unavailable, out), codec.Close
}
