package codec

import "crypto/tls"

// Relayed is a Session whose work is done by a server behind it, the backend.
// Until there is a connection to it, the session answers by itself in Step; once
// Introduce has returned nil, the engine calls Forward and Reply in place of Step.
// The contract of Session holds for them: one call at a time, at most 16 KiB left
// unconsumed, at most 256 KiB appended, and no waiting but in Introduce.
//
// The session sees to it that the client gets the replies in the order of its
// commands, also those that are its own and not the backend's.
//
// STARTTLS may come while there is a connection. When Forward has returned Upgrade,
// with no reply outstanding, and TLS can be served, that connection ends, and
// GoAhead and Secured follow: the session is then again without one.
type Relayed interface {
	Session

	// Introduce tells a backend who the client is and finds out what it offers.
	// It is called on a goroutine which may wait; u bounds how long. On an error,
	// which is for the log, Refuse with Unavailable follows.
	Introduce(u Upstream, c *Client) error

	// Forward consumes at most one frame from the front of in, which the client has
	// sent, n bytes, and appends to up what the backend is to get, to out what the
	// client is to get at once. It is called right after Introduce, also with no
	// input, and after Hold when a reply was consumed.
	Forward(in, up, out []byte) (n int, _, _ []byte, _ Action)

	// Reply consumes at most one frame from the front of in, which the backend has
	// sent, n bytes, and appends to out what the client is to get.
	Reply(in, out []byte) (n int, _ []byte, _ Action)

	// Outstanding reports whether the backend owes a reply, or the session waits for
	// a data connection to send it a command.
	Outstanding() bool
}

// Upstream is a new connection to a backend, of which the caller is the client.
// Its methods wait, until a deadline that it has set itself; they are for the
// goroutine that Introduce runs on.
type Upstream interface {
	// ReadLine returns the next line without its line end. The bytes are good until
	// the next call. A line over 16 KiB is an error.
	ReadLine() ([]byte, error)
	// Read reads what follows the last line, such as a literal.
	Read(p []byte) (int, error)
	// Write sends p, which it does not keep.
	Write(p []byte) (int, error)
	// MustStartTLS reports whether the session has to send STARTTLS before anything
	// that tells of the client, or fail when the backend does not offer it.
	MustStartTLS() bool
	// Secure reports whether there is TLS by now.
	Secure() bool
	// StartTLS does the handshake. It comes right behind the backend's go-ahead; it
	// is an error if anything in plaintext follows that (RFC 3207 §4.2). All that
	// was learnt before is to be forgotten.
	StartTLS() error
}

// Client is what a backend may be told of a client.
type Client struct {
	Peer *Peer
	TLS  *tls.ConnectionState // nil in plaintext
	Data Data                 // nil where the listener has none
}

// Settler is a Relayed session that is framed to its end and has a login: before it,
// the limits of a command and of the login hold, and after it that of an idle session.
type Settler interface {
	// LoggedIn reports whether the client has.
	LoggedIn() bool
}

// MaxPipeline bounds the commands of one client that a backend has not answered.
const MaxPipeline = 1000

// Pipeline is the commands that wait for their reply, in order: what each is, to
// its session, is a K. The zero value is empty.
type Pipeline[K any] struct {
	kinds []K
	head  int
}

// Len is the number of commands.
func (p *Pipeline[K]) Len() int { return len(p.kinds) - p.head }

// Full reports whether no more commands may be added for now.
func (p *Pipeline[K]) Full() bool { return p.Len() >= MaxPipeline }

// Add adds a command.
func (p *Pipeline[K]) Add(k K) {
	if p.head > 0 && len(p.kinds) == cap(p.kinds) { // make room for it
		p.kinds = append(p.kinds[:0], p.kinds[p.head:]...)
		p.head = 0
	}
	p.kinds = append(p.kinds, k)
}

// First is the oldest command. There must be one.
func (p *Pipeline[K]) First() *K { return &p.kinds[p.head] }

// Done removes the oldest command. An empty Pipeline holds no memory.
func (p *Pipeline[K]) Done() {
	if p.head++; p.head == len(p.kinds) {
		*p = Pipeline[K]{}
	}
}
