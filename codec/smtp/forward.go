package smtp

import (
	"bytes"
	"strconv"

	"starttlsd/codec"
)

const (
	maxDropped = 64 << 20  // octets of content that are read to their end though they are refused
	maxPiece   = 128 << 10 // octets of content that are passed on at once
	maxAnswer  = 12288     // a SASL answer with its CRLF (RFC 4954 §4)
)

// Forward implements codec.Relayed.
func (g *Gateway) Forward(in, up, out []byte) (n int, _, _ []byte, action codec.Action) {
	switch g.stage {
	case passingData:
		n, up, out, action = g.passData(in, up, out)
	case passingChunk:
		n, up, action = g.passChunk(in, up)
	case droppingData:
		n, out, action = g.dropData(in, out)
	case droppingChunk:
		n, out, action = g.dropChunk(in, out)
	case answering:
		n, up, out, action = g.passAnswer(in, up, out)
	case shaking, done:
		return len(in), up, out, codec.Close
	default:
		n, up, out, action = g.passCommand(in, up, out)
	}
	return n, up, out, action
}

// Outstanding implements codec.Relayed.
func (g *Gateway) Outstanding() bool { return g.link != nil && g.link.outstanding() }

// passCommand passes on one command, in a form of our own making.
func (g *Gateway) passCommand(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	l := g.link
	if l.held {
		return 0, up, out, codec.Hold
	}
	before := g.line
	n, f := g.read(in)
	switch {
	case f.more:
		return n, up, out, codec.NeedMore
	case l.outstanding() && g.waits(&f):
		g.line = before
		return 0, up, out, codec.Hold
	}
	g.count(&f)
	if f.why != nil || f.verb == "STARTTLS" {
		out, action := g.ours(&f, out)
		return n, up, out, action
	}
	up, action := g.send(&f, up)
	return n, up, out, action
}

// waits reports whether f cannot be dealt with before the replies that are
// outstanding: because ours would come before them, or depends on them.
func (g *Gateway) waits(f *frame) bool {
	l := g.link
	switch {
	case f.why != nil, f.verb == "STARTTLS", !l.pipelining, l.waiting.Full():
		return true
	default:
		return g.cfg.LMTP && f.last // how many replies it gets
	}
}

// send appends the command for the backend.
func (g *Gateway) send(f *frame, up []byte) ([]byte, codec.Action) {
	l, k := g.link, f.c.kind
	up = append(up, f.verb...)
	switch {
	case k == toChunk:
		up = append(up, ' ')
		up = strconv.AppendInt(up, f.size, 10)
		if f.last {
			k = toLastChunk
			up = append(up, " LAST"...)
		}
	case len(f.arg) > 0:
		up = append(up, ' ')
		up = append(up, f.arg...)
	}
	up = append(up, "\r\n"...)
	l.greeting(f)
	l.waiting.Add(k)
	l.held = f.c.flags&last != 0
	if f.size == 0 {
		return up, codec.Continue
	}
	g.to(passingChunk)
	g.left = f.size
	return up, codec.Content
}

// passData passes on content up to its end, as it is, unless there is something in
// it that the backend could take for an end (SMTP smuggling). That is looked for
// before a byte goes out, so a CR waits for what comes behind it.
func (g *Gateway) passData(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	l := g.link
	in = in[:min(len(in), maxPiece)]
	if end := len(in) - 1; end >= 0 && in[end] == '\r' && !bytes.HasSuffix(in, []byte("\r\r")) {
		in = in[:end] // two are a flaw, whatever comes
	}
	if len(in) == 0 {
		return 0, up, out, codec.NeedMore
	}
	n, end := l.dot.Skip(in)
	switch {
	case l.dot.Flaws()&^codec.LongLine != 0:
		g.to(droppingData)
		g.left = maxDropped
		out, action := g.dropped(n, end, out)
		return n, up, out, action
	case !end:
		return n, append(up, in[:n]...), out, codec.Content
	}
	g.to(talking)
	l.waiting.Add(toMessage)
	return n, append(up, in[:n]...), out, codec.Continue
}

// dropData reads refused content to its end, and then ends the session: for the
// backend the message never ends, so it is not delivered.
func (g *Gateway) dropData(in, out []byte) (int, []byte, codec.Action) {
	if len(in) == 0 {
		return 0, out, codec.NeedMore
	}
	n, end := g.link.dot.Skip(in)
	out, action := g.dropped(n, end, out)
	return n, out, action
}

func (g *Gateway) dropped(n int, end bool, out []byte) ([]byte, codec.Action) {
	if g.left -= int64(n); !end && g.left > 0 {
		return out, codec.Content
	}
	return g.close(out, errLineEnd)
}

// passChunk passes on content of a chunk. Its reply is in the pipeline since BDAT.
func (g *Gateway) passChunk(in, up []byte) (int, []byte, codec.Action) {
	if len(in) == 0 {
		return 0, up, codec.NeedMore
	}
	n := int(min(int64(len(in)), g.left, maxPiece))
	up = append(up, in[:n]...)
	if g.left -= int64(n); g.left > 0 {
		return n, up, codec.Content
	}
	g.to(talking)
	return n, up, codec.Continue
}

// dropChunk reads a chunk that is refused to its end, and answers it.
func (g *Gateway) dropChunk(in, out []byte) (int, []byte, codec.Action) {
	n := int(min(int64(len(in)), g.left))
	if g.left -= int64(n); g.left > 0 {
		return n, out, codec.Content
	}
	g.to(talking)
	out, action := g.refuse(out, g.answer)
	return n, out, action
}

// passAnswer passes on a SASL answer. What is none cancels the exchange, and the
// backend's reply to that is the one to it (RFC 4954 §4).
func (g *Gateway) passAnswer(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	n, line, status := g.line.Next(in, maxAnswer)
	switch {
	case status == codec.LineMore:
		return n, up, out, codec.NeedMore
	case status == codec.LineBinary:
		out, action := g.close(out, errBinary)
		return n, up, out, action
	case status != codec.LineOK || !isBase64(line):
		line = []byte{'*'}
	}
	g.to(talking)
	g.link.waiting.Add(toAUTH)
	g.link.held = true
	up = append(append(up, line...), "\r\n"...)
	return n, up, out, codec.Continue
}

// isBase64 reports whether p is of the alphabet of RFC 4648 §4.
func isBase64(p []byte) bool {
	return !bytes.ContainsFunc(p, func(c rune) bool {
		return (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '='
	})
}
