package load

// protocol is the client's side of a protocol's negotiation.
type protocol struct {
	scheme        string
	port, tlsPort string

	greeting string // how it begins
	hello    exchange
	starttls exchange
	noop     exchange
	quit     exchange

	busy []string               // how a reply begins that refuses for now
	more func(line []byte) bool // another line of the same reply follows
	mail bool                   // messages can be delivered
}

// exchange is a command and how the last line of its reply begins.
type exchange struct{ send, want string }

var protocols = []protocol{{
	scheme: "smtp", port: "25", tlsPort: "465",
	greeting: "220",
	hello:    exchange{"EHLO load.example\r\n", "250"},
	starttls: exchange{"STARTTLS\r\n", "220"},
	noop:     exchange{"NOOP\r\n", "250"},
	quit:     exchange{"QUIT\r\n", "221"},
	busy:     []string{"421", "454"}, // RFC 5321 §4.2.2, RFC 3207 §4
	more:     func(line []byte) bool { return len(line) > 3 && line[3] == '-' },
	mail:     true,
}}
