package codec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkLine finds a command that arrives in one piece or octet by octet. An
// operation is one line.
func BenchmarkLine(b *testing.B) {
	for _, size := range []int{6, 512, 2048} {
		for _, arrives := range []string{"whole", "bytewise"} {
			b.Run(fmt.Sprintf("size=%d/arrives=%s", size, arrives), func(b *testing.B) {
				in := []byte(strings.Repeat("x", size-2) + "\r\n")
				first := len(in)
				if arrives == "bytewise" {
					first = 1
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					var l Line
					status := LineMore
					for end := first; status == LineMore; end++ {
						_, _, status = l.Next(in[:end], 2048)
					}
					if status != LineOK {
						b.Fatal(status)
					}
				}
			})
		}
	}
}

// BenchmarkDot decodes a message, given in pieces as an event brings them.
func BenchmarkDot(b *testing.B) {
	for _, lines := range []struct{ name, text string }{
		{"plain", strings.Repeat("x", 76) + "\r\n"},
		{"dotted", "." + strings.Repeat("x", 75) + "\r\n"},
		{"empty", "\r\n"},
	} {
		for _, piece := range []int{1460, 64 << 10} {
			b.Run(fmt.Sprintf("lines=%s/piece=%d", lines.name, piece), func(b *testing.B) {
				in := encode(bytes.Repeat([]byte(lines.text), 32<<10/len(lines.text)))
				b.SetBytes(int64(len(in)))
				b.ReportAllocs()
				for b.Loop() {
					var d Dot
					for rest, done := in, false; !done; {
						var n int
						n, _, done = d.Next(rest[:min(len(rest), piece)])
						rest = rest[n:]
					}
				}
			})
		}
	}
}

// BenchmarkReply appends a reply to a buffer that has room for it.
func BenchmarkReply(b *testing.B) {
	for _, lines := range []int{1, 8} {
		b.Run(fmt.Sprintf("lines=%d", lines), func(b *testing.B) {
			text := make([]string, lines)
			for i := range text {
				text[i] = "SMTPUTF8 or its like"
			}
			out := make([]byte, 0, maxReply*lines)
			b.ReportAllocs()
			for b.Loop() {
				AppendReply(out, 250, "2.0.0", text...)
			}
		})
	}
}
