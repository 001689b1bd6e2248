package codec

import "bytes"

// MaxTextLine is the longest line of a message that is accepted, CRLF included.
// RFC 5321 §4.5.3.1.6 asks for 1,000; real mail exceeds that by far.
const MaxTextLine = 64 << 10

// Flaw is a set of faults for which a message is refused.
type Flaw uint8

const (
	BareCR   Flaw = 1 << iota // CR without LF
	BareLF                    // LF without CR
	NUL                       // octet 0
	LongLine                  // a line over MaxTextLine
)

// Text checks that a stream, in pieces of any size, is text of CRLF lines (RFC
// 5321 §2.3.8). A message that is not could be two for the next server, whether
// it came by DATA or by BDAT. The zero value is at the start of the stream.
type Text struct {
	col   int  // octets of the current line so far
	cr    bool // the last octet was CR
	flaws Flaw
}

// Check looks at the next piece of the stream. It keeps nothing of p.
func (t *Text) Check(p []byte) {
	if bytes.IndexByte(p, 0) >= 0 {
		t.flaws |= NUL
	}
	for len(p) > 0 {
		line, _, ended := bytes.Cut(p, lf)
		if len(line) > 0 {
			if i := bytes.IndexByte(line, '\r'); t.cr || i >= 0 && i < len(line)-1 {
				t.flaws |= BareCR
			}
			t.cr = line[len(line)-1] == '\r'
			t.col += len(line)
		}
		if t.col >= MaxTextLine {
			t.flaws |= LongLine
		}
		if !ended {
			return
		}
		if t.cr {
			t.col = 0
		} else {
			t.col++
			t.flaws |= BareLF
		}
		t.cr = false
		p = p[len(line)+1:]
	}
}

// Flaws is what is wrong with the stream so far.
func (t *Text) Flaws() Flaw { return t.flaws }

// End tells that the stream is over, and returns what was wrong with it.
func (t *Text) End() Flaw {
	if t.cr {
		t.flaws |= BareCR
	}
	return t.flaws
}

var lf = []byte{'\n'}
