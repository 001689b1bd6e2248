package codec

import (
	"bytes"
	"slices"
	"testing"
)

// FuzzLine: however the input is cut,
//   - the same lines are found, with the same verdicts;
//   - no more than a line's limit is ever left with the caller;
//   - a good line holds no CR, LF or NUL, and fits the limit;
//   - every CRLF of the input ends exactly one line, but for what LineBinary cuts off.
func FuzzLine(f *testing.F) {
	f.Add([]byte("EHLO a\r\nNOOP\nRSET\r\n"), uint8(1))
	f.Add([]byte("01234567890123456789\r\nQUIT\r\n"), uint8(3))
	f.Add([]byte("A\r\r\n\x00\r\n\x16\x03\x01"), uint8(2))
	f.Fuzz(func(t *testing.T, in []byte, piece uint8) {
		const limit = 16
		whole, _ := scan(in, len(in), limit)
		cut, kept := scan(in, int(piece)+1, limit)
		if !slices.Equal(whole, cut) {
			t.Fatalf("whole %q, in pieces of %d %q", whole, int(piece)+1, cut)
		}
		if kept >= limit {
			t.Fatalf("%d bytes kept", kept)
		}
		lines := 0
		for _, f := range whole {
			if f.status == LineBinary {
				return
			}
			if f.status == LineOK && (bytes.ContainsAny([]byte(f.line), "\r\n\x00") || len(f.line)+2 > limit) {
				t.Fatalf("line %q", f.line)
			}
			lines++
		}
		ends := bytes.Count(in, crlf)
		if lines != ends && (lines != ends+1 || whole[lines-1].status != LineTooLong) {
			t.Fatalf("%d lines for %d line ends: %q", lines, ends, whole)
		}
	})
}

// FuzzDot:
//   - any two cuts give the same text, the same end and the same flaws;
//   - the message ends behind the first CRLF.CRLF and nowhere else;
//   - without a flaw, text is what a client's encoder would have sent it for;
//   - encoding any text of CRLF lines and decoding it gives it back.
func FuzzDot(f *testing.F) {
	f.Add([]byte("a\r\n..b\r\n.\r\nQUIT\r\n"), 3, 7)
	f.Add([]byte(".\r\n"), 1, 2)
	for _, s := range smuggled {
		f.Add([]byte("a"+s.end+"b\r\n.\r\n"), 2, 4)
	}
	f.Fuzz(func(t *testing.T, in []byte, first, second int) {
		text, n, done, flaws := decode(in)
		first, second = clamp(first, len(in)), clamp(second, len(in))
		cutText, cutN, cutDone, cutFlaws := decode(in, min(first, second), max(first, second))
		if !bytes.Equal(text, cutText) || n != cutN || done != cutDone || flaws != cutFlaws {
			t.Fatalf("%q whole: %q %d %v %b, cut at %d and %d: %q %d %v %b",
				in, text, n, done, flaws, first, second, cutText, cutN, cutDone, cutFlaws)
		}
		// The CRLF in front of the message is that of the DATA command.
		end := bytes.Index(append([]byte("\r\n"), in...), []byte("\r\n.\r\n"))
		if done != (end >= 0) || done && n != end+len(".\r\n") {
			t.Fatalf("%q ends at %d, %v; want %d", in, n, done, end)
		}
		if done && flaws == 0 && !dotless(in[:n]) && !bytes.Equal(encode(text), in[:n]) {
			t.Fatalf("%q decodes to %q, which encodes to %q", in[:n], text, encode(text))
		}

		x := append(bytes.ReplaceAll(bytes.ReplaceAll(in, []byte("\n"), nil), []byte("\r"), crlf), crlf...)
		if back, _, done, _ := decode(encode(x)); !done || !bytes.Equal(back, x) {
			t.Fatalf("%q came back as %q", x, back)
		}
	})
}

func clamp(i, n int) int { return min(max(i, 0), n) }

// dotless reports whether a dot was removed that no encoder would have put there.
func dotless(in []byte) bool {
	for line := range bytes.SplitSeq(in[:len(in)-len(".\r\n")], crlf) {
		if len(line) > 0 && line[0] == '.' && (len(line) == 1 || line[1] != '.') {
			return true
		}
	}
	return false
}
