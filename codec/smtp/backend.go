package smtp

import (
	"crypto/tls"
	"errors"
	"io"
	"time"

	"starttlsd/codec"
)

// Backend takes the messages of all sessions of a listener. It is called from
// many goroutines at once, never from an event loop, so it may wait.
type Backend interface {
	// Begin starts one message. env is the session's; it does not change until
	// Commit or Abort, and it may be kept after that.
	Begin(env *Envelope) (Message, error)
}

// Message receives one message: the trace header first, then the content as the
// client sent it, byte for byte, with CRLF line ends and dots unstuffed. Write may
// be called with pieces of any size, also very small ones, and must not keep p.
//
// One goroutine at a time calls it, not always the same. The last call is one of
// Commit, which may follow a successful Write only, or Abort.
type Message interface {
	io.Writer
	// Commit delivers the message. It returns nil only when the message is
	// durable; after an error nothing of it is left.
	Commit() error
	// Abort discards the message. It may wait.
	Abort()
}

// What Begin, Write and Commit wrap to have the client told why. Any other error
// is answered with 451 4.3.0, try again later.
var (
	ErrFull   = errors.New("smtp: no room to store the message") // 452 4.3.1
	ErrTooBig = errors.New("smtp: message too big")              // 552 5.3.4
)

// Envelope is what is known of a message before its content.
type Envelope struct {
	ID       string   // the peer's ID and the number of the message in its session
	From     string   // reverse-path without brackets and source route; "" is the null path
	To       []string // forward-paths likewise, in the order given; "postmaster" may lack a domain
	Peer     codec.Peer
	Helo     string    // what the client calls itself, unverified; no control characters
	UTF8     bool      // SMTPUTF8 was asked for (RFC 6531)
	BodyType string    // "7BIT" or "8BITMIME" as declared, else ""
	Size     int64     // as declared with SIZE, 0 when unknown; never over the limit
	TLS      *TLSInfo  // nil in plaintext
	Time     time.Time // when the content began to arrive
}

// TLSInfo is what a session keeps of a finished handshake.
type TLSInfo struct {
	Version    uint16
	Cipher     uint16
	Group      tls.CurveID // 0 when no key exchange group was negotiated
	ServerName string      // SNI
	Client     string      // codec.ClientName
}
