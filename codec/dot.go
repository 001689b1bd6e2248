package codec

import "bytes"

// Dot decodes a message that ends with a dot on a line of its own (RFC 5321
// §4.5.2). It consumes all it is given up to that end and holds no bytes, so the
// input may be cut anywhere. The zero value is at the start of a message, which
// is the start of a line.
//
// CRLF.CRLF alone ends the message. A dot at the start of a line is removed; all
// else is passed on byte for byte. With a bare CR, a bare LF or another Flaw the
// decoder goes on to the true end, and Flaws says what to refuse the message for.
type Dot struct {
	state dotState
	text  Text
}

type dotState uint8

const (
	dotLine   dotState = iota // at the start of a line; to inDotLine, dotSeen
	inDotLine                 // in a line; to dotLine
	dotSeen                   // behind the dot that began a line; to inDotLine, dotCR
	dotCR                     // behind ".CR"; to inDotLine, dotDone
	dotDone                   // behind ".CRLF"
)

// Next decodes from the front of in. text is the next piece of the message: a
// part of in, or a constant, and in either case not to be written to. It may be
// empty. n counts the bytes consumed, which is less than all of in when a dot was
// removed or the message ended. done tells the latter, from then on always.
func (d *Dot) Next(in []byte) (n int, text []byte, done bool) {
	start := 0
	for n < len(in) {
		switch d.state {
		case dotLine:
			if in[n] != '.' {
				d.state = inDotLine
				continue
			}
			if n > start {
				return n, in[start:n], false
			}
			d.state = dotSeen
			n++
			start = n
		case dotSeen:
			d.state = inDotLine
			if in[n] == '\r' {
				d.state = dotCR
				n++
				start = n
			}
		case dotCR:
			if in[n] == '\n' {
				d.state = dotDone
				return n + 1, nil, true
			}
			d.state = inDotLine
			d.text.Check(bareCR)
			return n, bareCR, false
		case inDotLine:
			end := len(in)
			if i := bytes.IndexByte(in[n:], '\n'); i >= 0 {
				end = n + i + 1
			}
			d.text.Check(in[n:end])
			n = end
			if d.text.col == 0 {
				d.state = dotLine
			}
		case dotDone:
			return 0, nil, true
		}
	}
	return n, in[start:n], false
}

// Flaws is what is wrong with the message so far.
func (d *Dot) Flaws() Flaw { return d.text.Flaws() }

// Skip goes over a message that is passed on as it is: n bytes of in belong to it,
// its end included, which done tells.
func (d *Dot) Skip(in []byte) (n int, done bool) {
	for n < len(in) && !done {
		var m int
		m, _, done = d.Next(in[n:])
		n += m
	}
	return n, done
}

var bareCR = []byte{'\r'}
