package nntp

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
		Greet: "200 hi",
		Reply: func(string) []string { return []string{"200 ok"} },
		Never: func(line string) bool {
			line = strings.ToUpper(line)
			return strings.HasPrefix(line, "XCLIENT ") || strings.HasPrefix(line, "COMPRESS") || strings.HasPrefix(line, "XFEATURE")
		},
		Inside: func(cmd, line string) bool {
			switch verb, _, _ := strings.Cut(strings.ToUpper(cmd), " "); verb {
			case "POST", "IHAVE", "TAKETHIS":
				return true
			}
			return codectest.SASL("AUTHINFO SASL ")(cmd, line)
		},
		Seeds: []string{
			"MODE READER\r\nCAPABILITIES\r\nGROUP a\r\nARTICLE 1\r\n\xff200 x\r\n101 y\r\nSTARTTLS\r\nSASL A-PLUS\r\n.\r\n211 1\r\n220 1\r\n..\r\n.\r\n",
			"STARTTLS\r\n\xff\xffPOST\r\n\xff340 go\r\n\xffSubject: x\r\n\r\n.\r\nMODE STREAM\r\nTAKETHIS <a>\r\nx\n.\r\n\r\n.\r\nQUIT\r\n\xff240 x\r\n203 y\r\n239 <a>\r\n205 y\r\n",
			"HELP\r\nAUTHINFO USER u\r\nAUTHINFO SASL PLAIN\r\n\xff381 p\r\n383 x\r\n\xffAA==\r\n\xff281 in\r\n",
		},
	}.Run(f)
}
