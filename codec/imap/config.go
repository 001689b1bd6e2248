package imap

// Config is what all sessions of a listener share. It is read-only once the first
// Session is made of it. A zero limit means its default.
type Config struct {
	Hostname   string // in the greeting
	TLS        bool   // STARTTLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS bool   // nothing changes: there is no login in clear in any case
	ID         bool   // tell the backend by ID who the client is (RFC 2971), if it offers that
	Limits     Limits // of one session
}

// Limits bound what a session may do before login.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 8192
	Literal      int // octets of one literal, 4096; all of a command's together twice that
	BadCommands  int // syntax errors and unknown commands, 5: the last ends the session
	JunkCommands int // commands that do no work, failed logins among them, 50
}

const (
	defaultLine    = 8192
	defaultLiteral = 4096
	defaultBad     = 5
	defaultJunk    = 50
)
