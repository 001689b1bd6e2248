package load

import (
	"bytes"
	"strings"
)

// protocol is the client's side of a protocol's negotiation.
type protocol struct {
	scheme        string
	port, tlsPort string

	greeting string // how its last line begins
	again    string // how what comes unasked behind a handshake ends; "" where nothing does
	hello    exchange
	starttls exchange
	noop     exchange
	quit     exchange
	stay     exchange // noop of one who has logged in; empty: the same

	login      func(user, password string) []exchange // nil: not known
	idle, done exchange                               // what a session that has logged in waits in; empty: just waits

	busy []string // how a reply begins that refuses for now

	// more reports whether another line follows of the reply that is to end as want.
	more func(first opening, line []byte, want string) bool
	mail bool // messages can be delivered, and commands padded

	transfer *transferring // nil: nothing can be
}

// opening is how the first line of a reply begins.
type opening [4]byte

// transferring is how messages or files go across.
type transferring struct {
	begin func(o *Options) []exchange               // once a session, behind the login
	one   func(o *Options) func(*conn) (int, error) // transfers one, and returns its size
	files bool                                      // over connections of their own
}

// exchange is a command and how the last line of its reply begins.
type exchange struct{ send, want string }

var protocols = []protocol{
	mailProtocol("smtp", "25", "465", "EHLO"),
	mailProtocol("lmtp", "24", "", "LHLO"),
	{
		scheme: "imap", port: "143", tlsPort: "993",
		greeting: "* OK",
		hello:    exchange{"a CAPABILITY\r\n", "a OK"},
		starttls: exchange{"a STARTTLS\r\n", "a OK"},
		noop:     exchange{"a NOOP\r\n", "a OK"},
		quit:     exchange{"a LOGOUT\r\n", "a OK"},
		login:    imapLogin,
		idle:     exchange{"a IDLE\r\n", "+"}, // RFC 2177
		done:     exchange{"DONE\r\n", "a OK"},
		transfer: &transferring{begin: imapBegin, one: imapTransfer},
		busy:     []string{"* BYE", "a NO [UNAVAILABLE]"}, // RFC 5530 §3
		more: func(_ opening, line []byte, want string) bool {
			return want[0] != '*' && bytes.HasPrefix(line, []byte("* "))
		},
	},
	{
		scheme: "pop3", port: "110", tlsPort: "995",
		greeting: "+OK",
		hello:    exchange{"CAPA\r\n", "."},
		starttls: exchange{"STLS\r\n", "+OK"},
		noop:     exchange{"CAPA\r\n", "."}, // NOOP is for those who have logged in
		quit:     exchange{"QUIT\r\n", "+OK"},
		login:    popLogin,
		busy:     []string{"-ERR [SYS/TEMP]"}, // RFC 3206 §4
		more:     untilDot("-ERR"),
	},
	{
		scheme: "sieve", port: "4190", tlsPort: "",
		greeting: "OK",
		again:    "OK", // RFC 5804 §2.2
		hello:    exchange{"CAPABILITY\r\n", "OK"},
		starttls: exchange{"STARTTLS\r\n", "OK"},
		noop:     exchange{"NOOP\r\n", "OK"},
		quit:     exchange{"LOGOUT\r\n", "OK"},
		login:    sieveLogin,
		busy:     []string{"BYE (TRYLATER)", "NO (TRYLATER)"}, // RFC 5804 §1.3
		more:     func(_ opening, line []byte, _ string) bool { return len(line) > 0 && line[0] == '"' },
	},
	{
		scheme: "nntp", port: "119", tlsPort: "563",
		greeting: "20",
		hello:    exchange{"CAPABILITIES\r\n", "."},
		starttls: exchange{"STARTTLS\r\n", "382"},
		noop:     exchange{"DATE\r\n", "111"},
		quit:     exchange{"QUIT\r\n", "205"},
		busy:     []string{"400", "580"}, // RFC 3977 §3.2.1, RFC 4642 §2.2.2
		more:     untilDot("4", "5"),
	},
	{
		scheme: "ftp", port: "21", tlsPort: "990",
		greeting: "220",
		hello:    exchange{"FEAT\r\n", "211"},
		starttls: exchange{"AUTH TLS\r\n", "234"},
		noop:     exchange{"FEAT\r\n", "211"}, // NOOP is for those who have logged in, with some
		stay:     exchange{"NOOP\r\n", "200"},
		quit:     exchange{"QUIT\r\n", "221"},
		login:    ftpLogin,
		transfer: &transferring{begin: ftpBegin, one: ftpTransfer, files: true},
		busy:     []string{"421", "425", "431"}, // RFC 959 §4.2.2, RFC 4217 §4
		more:     untilCode,
	},
}

func mailProtocol(scheme, port, tlsPort, hello string) protocol {
	return protocol{
		scheme: scheme, port: port, tlsPort: tlsPort,
		greeting: "220",
		hello:    exchange{hello + " load.example\r\n", "250"},
		starttls: exchange{"STARTTLS\r\n", "220"},
		noop:     exchange{"NOOP\r\n", "250"},
		quit:     exchange{"QUIT\r\n", "221"},
		busy:     []string{"421", "454"}, // RFC 5321 §4.2.2, RFC 3207 §4
		more:     func(_ opening, line []byte, _ string) bool { return len(line) > 3 && line[3] == '-' },
		mail:     true,
	}
}

// untilDot is for lists that end with a dot; a refusal is one line.
func untilDot(refusals ...string) func(first opening, line []byte, want string) bool {
	return func(_ opening, line []byte, want string) bool {
		if want != "." || string(line) == ".\r\n" {
			return false
		}
		for _, r := range refusals {
			if strings.HasPrefix(string(line), r) {
				return false
			}
		}
		return true
	}
}

// untilCode is for replies from a code with a hyphen to the same one without, between
// which a line may be anything (RFC 959 §4.2).
func untilCode(first opening, line []byte, _ string) bool {
	if first[3] != '-' {
		return false
	}
	code, rest := line[:min(len(line), 3)], line[min(len(line), 3):]
	return !bytes.Equal(code, first[:3]) || len(rest) == 0 || rest[0] != ' ' && rest[0] != '\r'
}
