package imap

import (
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

// FuzzSession: see codectest.Fuzz.
func FuzzSession(f *testing.F) {
	codectest.Fuzz{
		Session: func(implicit bool) codec.Session {
			return New(&Config{Hostname: "front.test", TLS: !implicit}, &codectest.Peer)
		},
		// What is in literals may look like anything; commands but two have no way to pass.
		Greet: "* OK [CAPABILITY IMAP4rev1] hi",
		Reply: func(string) []string { return []string{"starttlsd OK"} },
		Seeds: []string{
			"a LOGIN {3}\r\nabc {3+}\r\nsec\r\n\xffa NO x\r\n\xffb AUTHENTICATE PLAIN\r\n\xff+ \r\n\xffAA==\r\n\xffb OK in\r\n",
			"a STARTTLS\r\n\xff\xffa CAPABILITY\r\nb LOGIN u p\r\nc NOOP\r\n\xff* CAPABILITY COMPRESS=DEFLATE\r\n* ID {3}\r\nabc\r\nb OK [CAPABILITY X] y\r\nz",
			"a LOGIN {9+}\r\nx LOGOUT\r\n {2}\r\nb ID (\"x-originating-ip\" \"1\")\r\nc LOGIN \"a\\\"\" {1}\r\n\xff+ \r\n+ \r\n* BYE\r\n",
		},
	}.Run(f)
}
