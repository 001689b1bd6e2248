package smtp

import "time"

// Config is what all sessions of a listener share. It is read-only once the first
// Session is made of it. A zero limit means its default.
type Config struct {
	Hostname       string           // in the greeting, replies and Received lines
	TLS            bool             // STARTTLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS     bool             // in clear only NOOP, EHLO, STARTTLS and QUIT; not for a public MX (RFC 3207 §4)
	MaxMessageSize int64            // octets of content, 25 MiB
	MaxReceived    int              // a message with more Received lines loops, 100 (RFC 5321 §6.3)
	Limits         Limits           // of one session
	Backend        Backend          // takes the messages
	Now            func() time.Time // time.Now when nil
}

// Limits bound what one session may do.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 2048 (RFC 5321 §4.5.3.1.4 asks for 512)
	BadCommands  int // syntax errors and unknown commands, 5: the last is answered with 421
	JunkCommands int // commands that do no work since the last accepted message, 50
	Recipients   int // of one message, 1000 (RFC 5321 §4.5.3.1.8 asks for 100)
	Messages     int // transactions begun, 100
}

const (
	defaultMessageSize = 25 << 20
	defaultReceived    = 100
	defaultLine        = 2048
	defaultBad         = 5
	defaultJunk        = 50
	defaultRecipients  = 1000
	defaultMessages    = 100
)
