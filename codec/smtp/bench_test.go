package smtp

import (
	"bytes"
	"fmt"
	"math"
	"testing"

	"starttlsd/codec"
)

// nowhere is a backend that takes every message and keeps none.
type nowhere struct{}

func (nowhere) Begin(*Envelope) (Message, error) { return nowhere{}, nil }
func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) Commit() error                    { return nil }
func (nowhere) Abort()                           {}

// greeted is a session after EHLO, without the limits that a benchmark would reach.
func greeted(b *testing.B) *Session {
	cfg := testConfig(nowhere{})
	cfg.Limits = Limits{JunkCommands: math.MaxInt32, BadCommands: math.MaxInt32, Messages: math.MaxInt32}
	s := New(cfg, &testPeer)
	steps(b, s, []byte("EHLO client.example\r\n"), s.Greet(nil))
	return s
}

// steps has s consume all of in, which has no STARTTLS and no QUIT in it.
func steps(b *testing.B, s *Session, in, out []byte) {
	for len(in) > 0 {
		n, _, action := s.Step(in, out)
		if action == codec.Close || action == codec.Upgrade {
			b.Fatalf("action %d at %.20q", action, in)
		}
		in = in[n:]
	}
}

// BenchmarkStep is one command.
func BenchmarkStep(b *testing.B) {
	for _, command := range []string{"NOOP", "EHLO client.example", "XYZZY"} {
		b.Run(fmt.Sprintf("command=%.4s", command), func(b *testing.B) {
			s, in, out := greeted(b), []byte(command+"\r\n"), make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				steps(b, s, in, out)
			}
		})
	}
}

// BenchmarkMessage is a whole transaction, its content in pieces of 64 KiB, with a
// backend that does nothing.
func BenchmarkMessage(b *testing.B) {
	line := []byte("A line of the usual length, as people write them and programs break them.\r\n")
	for _, size := range []int{4 << 10, 1 << 20} {
		content := append([]byte("Subject: bench\r\n\r\n"), bytes.Repeat(line, size/len(line))...)
		for _, by := range []string{"DATA", "BDAT"} {
			b.Run(fmt.Sprintf("by=%s/size=%d", by, size), func(b *testing.B) {
				s, out := greeted(b), make([]byte, 0, 4096)
				envelope := []byte("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\n")
				begin, end := []byte("DATA\r\n"), []byte(".\r\n")
				if by == "BDAT" {
					begin, end = fmt.Appendf(nil, "BDAT %d LAST\r\n", len(content)), nil
				}
				b.SetBytes(int64(len(content)))
				b.ReportAllocs()
				for b.Loop() {
					steps(b, s, envelope, out)
					steps(b, s, begin, out)
					for rest := content; len(rest) > 0; {
						piece := rest[:min(len(rest), 64<<10)]
						steps(b, s, piece, out)
						rest = rest[len(piece):]
					}
					steps(b, s, end, out)
				}
				if s.open() {
					b.Error("the last message did not end")
				}
			})
		}
	}
}
