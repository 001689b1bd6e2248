package codec

import "bytes"

// LineStatus is what Line.Next has found.
type LineStatus uint8

const (
	LineMore    LineStatus = iota // no complete line is buffered
	LineOK                        // a line
	LineBad                       // a complete line that holds NUL, a bare CR or a bare LF
	LineTooLong                   // a line over the limit: said once, the rest of it is skipped
	LineBinary                    // no text protocol: the peer speaks TLS, or worse
)

// Line finds the lines of a command dialogue in the bytes that the caller has
// buffered. It keeps no bytes, only how far it has looked, so that a line which
// arrives byte by byte is looked at once. The zero value is ready. Like the
// Session that holds it, it is called by one goroutine at a time.
type Line struct {
	seen uint32 // bytes at the front of in that hold no line end
	bad  bool   // a bare LF is among them
	skip bool   // in the rest of an over-long line
}

// Next looks for a line of at most limit octets, CRLF included (at least 2), at
// the front of in, which begins where the last call stopped consuming: what is
// not consumed is passed again, with what has arrived behind it. It consumes n
// bytes; the line is a part of in, without its CRLF.
//
// Only CRLF ends a line (RFC 5321 §2.3.8). With any other control over line ends
// in it, all of the line up to its CRLF is one LineBad: what one implementation
// takes for two commands must not be two here.
func (l *Line) Next(in []byte, limit int) (n int, line []byte, status LineStatus) {
	return l.next(in, limit, false)
}

// NextOfAny is Next for lines that may begin with any octet, such as those within a
// reply: none of them is LineBinary.
func (l *Line) NextOfAny(in []byte, limit int) (n int, line []byte, status LineStatus) {
	return l.next(in, limit, true)
}

func (l *Line) next(in []byte, limit int, any bool) (n int, line []byte, status LineStatus) {
	if n = l.Skip(in); l.skip {
		return n, nil, LineMore
	}
	in = in[n:]
	if !any && l.seen == 0 && len(in) > 0 && binary(in[0]) {
		return n, nil, LineBinary
	}
	for seen := int(l.seen); seen < min(len(in), limit); seen = int(l.seen) {
		i := bytes.IndexByte(in[seen:min(len(in), limit)], '\n')
		if i < 0 {
			break
		}
		end := seen + i
		l.seen = uint32(end + 1)
		if end == 0 || in[end-1] != '\r' {
			l.bad = true
			continue
		}
		line = in[:end-1]
		status = LineOK
		if l.bad || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
			status = LineBad
		}
		l.Reset()
		return n + end + 1, line, status
	}
	if len(in) < limit {
		l.seen = uint32(len(in))
		return n, nil, LineMore
	}
	*l = Line{skip: true}
	return n + keepCR(in[:limit]), nil, LineTooLong
}

// Begun reports whether a part of a line was looked at.
func (l *Line) Begun() bool { return l.seen > 0 || l.skip }

// Skip is for a caller that has to look at what stands before a line: it consumes what
// in has of an over-long line before it.
func (l *Line) Skip(in []byte) (n int) {
	if l.skip {
		n = l.skipRest(in)
	}
	return n
}

// Reset forgets a line that has begun.
func (l *Line) Reset() { *l = Line{} }

// skipRest skips to the end of an over-long line.
func (l *Line) skipRest(in []byte) int {
	if i := bytes.Index(in, crlf); i >= 0 {
		l.skip = false
		return i + len(crlf)
	}
	return keepCR(in)
}

var crlf = []byte("\r\n")

// keepCR is the length of p without a last CR, whose LF may be still to come.
func keepCR(p []byte) int {
	if n := len(p); n > 0 && p[n-1] == '\r' {
		return n - 1
	}
	return len(p)
}

// binary reports whether no line of text begins with c. The first octet of a TLS
// record (0x16) and of an SSL 2 hello (0x80) are such: waiting for their CRLF
// would be waiting for the deadline.
func binary(c byte) bool {
	return c >= 0x7f || c < ' ' && c != '\t' && c != '\r' && c != '\n'
}
