package sieve

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
		Greet: "\"SIEVE\" \"\"\r\nOK",
		Reply: func(string) []string { return nil },
		Never: func(line string) bool {
			line = strings.ToUpper(line)
			return strings.HasPrefix(line, "XCLIENT ") || strings.HasPrefix(line, "STARTTLS")
		},
		Inside: codectest.SASL("AUTHENTICATE "),
		Seeds: []string{
			"AUTHENTICATE \"PLAIN\" {4+}\r\nAA==\r\n\xffNO {2}\r\nxx\r\n\xffAUTHENTICATE \"X\"\r\n\xff{2}\r\nab\r\n\xff\"yy\"\r\nLISTSCRIPTS\r\n\xffOK\r\nmore",
			"STARTTLS\r\n\xff\xffCAPABILITY\r\nNOOP \"a\"\r\nPUTSCRIPT \"x\" {9+}\r\nSTARTTLS\r\n\r\nLOGOUT\r\n",
		},
	}.Run(f)
}
