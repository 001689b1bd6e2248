package codec

import (
	"strings"
	"testing"
)

func TestAppendReply(t *testing.T) {
	for _, test := range []struct {
		code   int
		status string
		lines  []string
		want   string
	}{
		{250, "2.0.0", []string{"Ok"}, "250 2.0.0 Ok\r\n"},
		{220, "", []string{"mx ESMTP"}, "220 mx ESMTP\r\n"},
		{250, "", []string{"mx", "PIPELINING", "SIZE 9"}, "250-mx\r\n250-PIPELINING\r\n250 SIZE 9\r\n"},
		{550, "5.1.1", []string{"a", "b"}, "550-5.1.1 a\r\n550 5.1.1 b\r\n"},
		{500, "", []string{"x\r\n250 ok\x00\x7f\xe9"}, "500 x??250 ok???\r\n"},
	} {
		if got := string(AppendReply(nil, test.code, test.status, test.lines...)); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestReplyLinesAreAtMost512Octets(t *testing.T) {
	got := string(AppendReply([]byte("220 x\r\n"), 250, "2.0.0", strings.Repeat("a", 2000), "b"))
	lines := strings.SplitAfter(got, "\r\n")
	if len(lines) != 4 || len(lines[1]) != 512 || lines[2] != "250 2.0.0 b\r\n" {
		t.Errorf("%q", lines)
	}
}

func TestReturnedBuffersHoldNoCredentials(t *testing.T) {
	b := GetBuffer()
	b.B = append(b.B[:0], "AUTH PLAIN c2VjcmV0"...)
	all := b.B[:cap(b.B)]
	b.B = b.B[:3] // what was consumed stays in the array
	PutZeroed(b)
	if s := strings.Trim(string(all), "\x00"); s != "" {
		t.Errorf("%q", s)
	}
}
