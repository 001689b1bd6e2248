package codec

import (
	"bytes"
	"strings"
	"testing"
)

// decode gives in to a Dot, cut at the given places, as far as the message goes.
func decode(in []byte, cuts ...int) (text []byte, n int, done bool, flaws Flaw) {
	var d Dot
	for _, end := range append(cuts, len(in)) {
		for n < end && !done {
			var m int
			var piece []byte
			m, piece, done = d.Next(in[n:end])
			n += m
			text = append(text, piece...)
		}
	}
	return text, n, done, d.Flaws()
}

// encode is what a client does: RFC 5321 §4.5.2. x ends with CRLF or is empty.
func encode(x []byte) []byte {
	x = bytes.ReplaceAll(x, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(x, []byte(".")) {
		x = append([]byte("."), x...)
	}
	return append(x[:len(x):len(x)], ".\r\n"...)
}

func TestDotDecodesByteExactWhereverItIsCut(t *testing.T) {
	for _, test := range []struct {
		in, want string
		flaws    Flaw
	}{
		{".\r\n", "", 0},
		{"\r\n.\r\n", "\r\n", 0},
		{"a\r\n.\r\n", "a\r\n", 0},
		{"..\r\n.\r\n", ".\r\n", 0},
		{"...\r\n.\r\n", "..\r\n", 0},
		{".a\r\n.\r\n", "a\r\n", 0},
		{"a\r\n..b\r\nc\r\n.\r\n", "a\r\n.b\r\nc\r\n", 0},
		{"caf\xc3\xa9 \xff\r\n.\r\n", "caf\xc3\xa9 \xff\r\n", 0},
		{".\r.\r\n.\r\n", "\r.\r\n", BareCR},
		{".\r\r\n.\r\n", "\r\r\n", BareCR},
		{"a\x00b\r\n.\r\n", "a\x00b\r\n", NUL},
	} {
		for first := 0; first <= len(test.in); first++ {
			for second := first; second <= len(test.in); second++ {
				text, n, done, flaws := decode([]byte(test.in), first, second)
				if string(text) != test.want || !done || n != len(test.in) || flaws != test.flaws {
					t.Fatalf("%q cut at %d and %d: %q, done %v, flaws %b", test.in, first, second, text, done, flaws)
				}
			}
		}
	}
}

// The endings by which one server's message becomes another server's two:
// smuggling (CVE-2023-51764, -51765, -51766).
var smuggled = []struct {
	end   string
	flaws Flaw
}{
	{"\n.\n", BareLF},
	{"\r.\r", BareCR},
	{"\r.\n", BareCR | BareLF},
	{"\n.\r", BareLF | BareCR},
	{"\n.\r\n", BareLF},
	{"\r\n.\n", BareLF},
	{"\r.\r\n", BareCR},
	{"\r\n.\r", BareCR},
	{"\r\n\x00.\r\n", NUL},
	{"\r\n.\x00\r\n", NUL},
}

func TestDotIsNotEndedBySmuggledEndings(t *testing.T) {
	for _, test := range smuggled {
		in := []byte("a" + test.end + "MAIL FROM:<x@y>\r\n.\r\nQUIT\r\n")
		want := bytes.Index(in, []byte("QUIT"))
		for cut := range in {
			_, n, done, flaws := decode(in, cut)
			if !done || n != want || flaws != test.flaws {
				t.Errorf("%q cut at %d: ends at %d, want %d, flaws %b", in, cut, n, want, flaws)
			}
		}
	}
}

func TestDotLeavesWhatFollowsTheEnd(t *testing.T) {
	if _, n, done, _ := decode([]byte("a\r\n.\r\n.\r\nMAIL")); n != 6 || !done {
		t.Errorf("ends at %d, done %v", n, done)
	}
}

func TestTextLineLimitIsExact(t *testing.T) {
	for size, want := range map[int]Flaw{MaxTextLine: 0, MaxTextLine + 1: LongLine} {
		var whole, bytewise Text
		line := []byte("x\r\n" + strings.Repeat("A", size-2) + "\r\n")
		whole.Check(line)
		for i := range line {
			bytewise.Check(line[i : i+1])
		}
		if whole.End() != want || bytewise.End() != want {
			t.Errorf("line of %d: %b, bytewise %b, want %b", size, whole.End(), bytewise.End(), want)
		}
	}
}

func TestTextMayEndInTheMiddleOfALineButNotBehindCR(t *testing.T) {
	for in, want := range map[string]Flaw{"a": 0, "a\r\n": 0, "a\r": BareCR, "": 0} {
		var text Text
		text.Check([]byte(in))
		if got := text.End(); got != want {
			t.Errorf("%q: %b, want %b", in, got, want)
		}
	}
}

func TestDotDoesNotAllocate(t *testing.T) {
	in := encode(bytes.Repeat([]byte("a line\r\n.dot\r\n"), 100))
	n := testing.AllocsPerRun(100, func() {
		var d Dot
		for rest, done := in, false; !done; {
			var n int
			n, _, done = d.Next(rest)
			rest = rest[n:]
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
