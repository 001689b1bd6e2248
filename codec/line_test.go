package codec

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// found is one result of Line.Next other than LineMore.
type found struct {
	line   string
	status LineStatus
}

// scan gives all of in to a Line in pieces of the given size, as an engine does:
// what is not consumed is passed again. It returns what was found, and the most
// bytes that had to be kept.
func scan(in []byte, piece, limit int) (all []found, kept int) {
	var l Line
	var held []byte
	for len(in) > 0 {
		n := min(piece, len(in))
		held = append(held, in[:n]...)
		in = in[n:]
		for {
			n, line, status := l.Next(held, limit)
			if status == LineMore {
				held = held[n:]
				break
			}
			all = append(all, found{string(line), status})
			held = held[n:]
			if status == LineBinary {
				return all, kept
			}
		}
		kept = max(kept, len(held))
	}
	return all, kept
}

func TestLineEndsWithCRLFOnly(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []found
	}{
		{"NOOP\r\n", []found{{"NOOP", LineOK}}},
		{"\r\n", []found{{"", LineOK}}},
		{"a\r\nb\r\n", []found{{"a", LineOK}, {"b", LineOK}}},
		{"NOOP", nil},
		{"NOOP\r", nil},
		{"NOOP\n", nil},
		{"NOOP\nRSET\r\n", []found{{"NOOP\nRSET", LineBad}}},
		{"NOOP\rRSET\r\n", []found{{"NOOP\rRSET", LineBad}}},
		{"NOOP\r\r\n", []found{{"NOOP\r", LineBad}}},
		{"NOOP\x00\r\nRSET\r\n", []found{{"NOOP\x00", LineBad}, {"RSET", LineOK}}},
		{"\nNOOP\r\n", []found{{"\nNOOP", LineBad}}},
		{"\n\r\nRSET\r\n", []found{{"\n", LineBad}, {"RSET", LineOK}}},
		{"01234567890\r\n", []found{{"", LineTooLong}}},
		{"01234567890\nRSET\r\nNOOP\r\n", []found{{"", LineTooLong}, {"NOOP", LineOK}}},
		{"01234567890\r\r\nNOOP\r\n", []found{{"", LineTooLong}, {"NOOP", LineOK}}},
		{"\x16\x03\x01\x02", []found{{"", LineBinary}}},
		{"01234567890\r\n\x16\x03\x01\x02", []found{{"", LineTooLong}, {"", LineBinary}}},
		{"\x80\x2e\x01", []found{{"", LineBinary}}},
	} {
		for piece := 1; piece <= len(test.in); piece++ {
			got, _ := scan([]byte(test.in), piece, 12)
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", test.want) {
				t.Errorf("%q in pieces of %d: %q, want %q", test.in, piece, got, test.want)
			}
		}
	}
}

func TestLineLimitIsExact(t *testing.T) {
	const limit = 2048
	for _, test := range []struct {
		size int
		want LineStatus
	}{{limit - 1, LineOK}, {limit, LineOK}, {limit + 1, LineTooLong}, {10 << 20, LineTooLong}} {
		in := []byte(strings.Repeat("A", test.size-2) + "\r\nNOOP\r\n")
		for _, piece := range []int{1, 7, limit, 32 << 10, len(in)} {
			if piece == 1 && len(in) > 1<<20 {
				continue
			}
			got, kept := scan(in, piece, limit)
			if len(got) != 2 || got[0].status != test.want || got[1] != (found{"NOOP", LineOK}) {
				t.Errorf("line of %d in pieces of %d: %.60q", test.size, piece, got)
			}
			if kept >= limit {
				t.Errorf("line of %d in pieces of %d: %d bytes kept", test.size, piece, kept)
			}
		}
	}
}

func TestLineSaysTooLongBeforeTheLineEnds(t *testing.T) {
	got, kept := scan(bytes.Repeat([]byte("A"), 10<<20), 32<<10, 2048)
	if len(got) != 1 || got[0].status != LineTooLong || kept != 0 {
		t.Errorf("%v, %d bytes kept", got, kept)
	}
}

func TestLineResetForgetsHalfALine(t *testing.T) {
	var l Line
	l.Next([]byte("NO\nO"), 10)
	l.Reset()
	if n, line, status := l.Next([]byte("A\r\n"), 10); n != 3 || string(line) != "A" || status != LineOK {
		t.Errorf("%d %q %v", n, line, status)
	}
}

func TestLineDoesNotAllocate(t *testing.T) {
	var l Line
	in := []byte("MAIL FROM:<a@example.org>\r\n")
	if n := testing.AllocsPerRun(100, func() { l.Next(in[:9], 2048); l.Next(in, 2048) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
