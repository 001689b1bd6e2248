package pop3

import (
	"strings"
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
		Greet: "+OK hi",
		Reply: func(string) []string { return []string{"+OK"} },
		Never: func(line string) bool {
			line = strings.ToUpper(line)
			return strings.HasPrefix(line, "XCLIENT ") || strings.HasPrefix(line, "STLS")
		},
		Inside: codectest.SASL("AUTH "),
		Seeds: []string{
			"CAPA\r\nUSER u\r\n\xff+OK\r\nSTLS\r\nSASL PLAIN X-PLUS\r\n.\r\n+OK\r\n\xffPASS p\r\nSTAT\r\n\xff+OK in\r\nmore",
			"STLS\r\n\xff\xffAUTH PLAIN\r\nXCLIENT A\r\n\xff+ \r\n\xffAA==\r\n\xff-ERR no\r\n\xffUTF8\r\nQUIT\r\n\xff+OK\r\n",
		},
	}.Run(f)
}
