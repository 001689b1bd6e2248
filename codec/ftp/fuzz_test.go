package ftp

import (
	"strings"
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

// FuzzSession: see codectest.Fuzz. Besides, a backend is never told of TLS, of a port
// of the client's, or of a line that is two.
func FuzzSession(f *testing.F) {
	codectest.Fuzz{
		Session: func(implicit bool) codec.Session {
			return New(&Config{Hostname: "front.test", TLS: !implicit, Active: true, RequireTLS: ForControl}, &codectest.Peer)
		},
		Greet: "220 hi",
		Reply: func(string) []string { return []string{"200 ok"} },
		Never: func(line string) bool {
			verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
			switch verb {
			case "AUTH", "PBSZ", "PROT", "CCC", "PORT", "EPRT", "XCLIENT", "GET":
				return true
			}
			return strings.ContainsAny(line, "\r\n\x00")
		},
		Parting: 0x01,
		Seeds: []string{
			"USER u\r\n\x01331 p\r\n\x01PASS p\r\n\x01230 in\r\n\x01PASV\r\n\x01227 (1,2,3,4,5,6)\r\n\x01RETR f\r\n\x01\x01\x01" +
				"150 go\r\n226 done\r\n\x01NOOP\r\n\x01200 ok\r\n",
			"AUTH TLS\r\n\x01\x01PBSZ 0\r\nPROT P\r\nUSER u\r\n\x01230-a\r\n 230 b\r\n230 c\r\n\x01PORT 192,0,2,1,200,1\r\n\x01" +
				"227 =1,2,3,4,5,6\r\n\x01STOR f\r\n\x01\x01\xff\xf4\xff\xf2ABOR\r\nSTAT\r\n\x01150 go\r\n213 x\r\n426 x\r\n226 y\r\n",
			"FEAT\r\nEPSV ALL\r\n\x01211-x\r\n AUTH TLS\r\n SIZE\r\n211 End\r\n\x01EPSV 1\r\n\x01229 (|||2000|)\r\n\x01QUIT\r\n\x01421 x\r\n",
		},
	}.Run(f)
}
