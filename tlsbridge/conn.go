package tlsbridge

import (
	"crypto/tls"
	"io"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/valyala/bytebufferpool"
)

// Link is the byte stream under TLS.
//
// On an event loop it never waits: Read copies what has arrived, or returns
// (0, ErrWouldBlock). While the connection is lent to a goroutine it is an
// ordinary blocking stream. Write takes all of p, copying what the socket
// refuses and keeping the order, or fails for good. Neither keeps p.
//
// A Link with the methods LocalAddr and RemoteAddr shows them to callbacks as
// tls.ClientHelloInfo.Conn; they are then called within a turn of the handshake.
type Link interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
}

// Options are the terms of one handshake of a server. The zero value is usable.
type Options struct {
	// Permit is the reservation made before the go-ahead. Nil: one of
	// DefaultSlots, without the bound per client; when there is none, the
	// handshake fails with ReasonBusy.
	Permit *Permit
	// Budget is the most bytes that the peer's part of the handshake may have.
	// 0: 16 KiB, or 288 KiB when client certificates are asked for. Behind the
	// client's Finished, up to 1 MiB of its data may already follow.
	Budget int
	// Binding, unless nil, is what others are to be bound to the connection by: its
	// handshake is done with what Issue makes of the Config.
	Binding *Binding
	// Timeout bounds the handshake, counted from Server. 0: the owner calls Abort.
	Timeout time.Duration
	// Wake is called when the loop has to call Read: there is something to send,
	// or the handshake is over. It is called within a turn or within Abort; it must
	// not block, and may still come after the owner has closed the connection.
	Wake func()
	// Go has to run turn, later and once, on a goroutine of its choice. It is
	// called on whatever goroutine calls Read or Abort, ends another handshake of
	// the Lane, or sees the Timeout pass. In a turn the handshake computes for some
	// hundred microseconds, callbacks of the tls.Config included, and returns when
	// it has to wait for the peer or is over. Nil: go turn().
	//
	// An event loop may run the turns itself if no callback waits or calls
	// runtime.Goexit. It then needs no Wake, but calls Read after each turn, and
	// reserves its Permits in a Lane with one slot.
	Go func(turn func())
	// OnPanic hears of a panic in a callback of the tls.Config, within the turn.
	// The handshake then fails with a *PanicError.
	OnPanic func(value any, stack []byte)

	sparing bool // the link keeps what the handshake has no use for: its owner can wait
}

const (
	defaultBudget     = 16 << 10
	defaultBudgetCert = 288 << 10 // 256 KiB is what crypto/tls takes as a Certificate message
)

// Conn is an end of a TLS connection whose owner must not wait: the server's, or the
// client's once its handshake is done. See the package comment for who may call what.
type Conn struct {
	tls  *tls.Conn // its net.Conn is this very Conn, as *shim
	link Link
	hs   atomic.Pointer[handshake] // nil once Read has seen the end of the handshake

	binding *Binding // nil: nothing is bound to it

	records recordCut                  // where the next byte for crypto/tls stands in its record
	early   *bytebufferpool.ByteBuffer // what arrived behind the handshake; nil when crypto/tls has it all
	served  int                        // the part of early that crypto/tls has
	first   [recordHeader]byte         // read from the link ahead of crypto/tls
	ahead   uint8                      // how many of them
	dry     bool                       // crypto/tls needs new input before it returns anything
	ended   bool                       // it has been given linkErr

	failed   error // *HandshakeError; never changes once hs is nil
	readErr  error // first lasting error of Read
	linkErr  error // first lasting error of link.Read
	writeErr error // first error of link.Write; guarded by the write lock of tls
	took     time.Duration
}

// Server returns the server's end of a TLS connection over l. It starts
// nothing: the handshake advances as the loop calls Read, the first time right
// away, because the ClientHello may be there already. From now on nothing but
// TLS is written to l.
func Server(l Link, cfg *tls.Config, o Options) *Conn {
	c := &Conn{link: l, binding: o.Binding}
	if c.binding != nil {
		cfg = c.binding.Issue(cfg)
	}
	c.tls = tls.Server((*shim)(c), cfg)
	if o.Permit == nil {
		permit, err := DefaultSlots.Reserve(netip.Prefix{})
		if err != nil {
			c.failed = &HandshakeError{Reason: causeReason(err), Err: err}
			return c
		}
		o.Permit = permit
	}
	if o.Budget == 0 {
		o.Budget = defaultBudget
		if cfg != nil && cfg.ClientAuth != tls.NoClientCert {
			o.Budget = defaultBudgetCert
		}
	}
	h := newHandshake(c, o)
	if !o.Permit.claim(h.granted) {
		c.failed = &HandshakeError{Reason: ReasonInternal, Err: errPermitUsed}
		return c
	}
	c.hs.Store(h)
	if o.Timeout > 0 {
		h.expireAfter(o.Timeout)
	}
	return c
}

// Binding is the one of the Options; nil without. Any goroutine.
func (c *Conn) Binding() *Binding { return c.binding }

// Read reads decrypted bytes. It is for the owner alone: the event loop, or the
// goroutine that the connection is lent to.
//
// While the handshake runs, it takes what the link has, sends what the
// handshake has written, and returns (0, ErrWouldBlock). When the handshake has
// failed it returns a *HandshakeError, for ever.
//
// Afterwards it returns ErrWouldBlock, or the link's own temporary error, when
// nothing is left; io.EOF after the peer's close_notify (RFC 8446 §6.1); and
// io.ErrUnexpectedEOF when the stream ended without one. The first lasting error
// is returned for ever. Bytes may be waiting inside with no event to announce
// them: call Read until it would block, also right after the handshake.
func (c *Conn) Read(p []byte) (int, error) {
	if h := c.hs.Load(); h != nil && !h.step(c.link) {
		return 0, ErrWouldBlock
	} else if h != nil {
		c.settle(h)
	}
	if c.failed != nil {
		return 0, c.failed
	}
	if c.readErr != nil {
		return 0, c.readErr
	}
	if c.dry && c.early == nil {
		if err := (*shim)(c).peek(); err != nil {
			return 0, err
		}
	}
	n, err := c.tls.Read(p)
	c.dry = n < len(p) // crypto/tls has no more than one record
	if err != nil && !temporary(err) {
		if err == io.EOF && c.ended {
			err = io.ErrUnexpectedEOF // crypto/tls does not tell this from a close_notify
		}
		c.readErr = err
	}
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// settle takes over from a handshake that is over.
func (c *Conn) settle(h *handshake) {
	c.took, c.linkErr = h.took, h.inErr
	if h.err != nil {
		c.failed = h.err
	} else if c.early, c.served = h.in, h.served; c.served == c.early.Len() {
		c.dropEarly()
	}
	c.hs.Store(nil)
}

func (c *Conn) dropEarly() {
	buffers.Put(c.early)
	c.early, c.served = nil, 0
}

// Write encrypts p and gives it to the link. It is for the owner, after the
// handshake; while the connection is lent, Write and Read may run on two
// goroutines. p is not kept. Any error is final.
func (c *Conn) Write(p []byte) (int, error) {
	if c.failed != nil {
		return 0, c.failed
	}
	if c.Handshaking() {
		return 0, errHandshaking
	}
	return c.tls.Write(p)
}

// CloseNotify tells the peer that nothing more will be written (RFC 8446 §6.1),
// once. Without an established session it does nothing. For the owner, as Write.
func (c *Conn) CloseNotify() error {
	if c.failed != nil || c.Handshaking() {
		return nil
	}
	return c.tls.CloseWrite()
}

// SetLink exchanges the stream under TLS, when the connection is lent or given
// back: l goes on at the byte where the previous link stands. For the owner
// alone, with no Read or Write running, and not while handshaking.
func (c *Conn) SetLink(l Link) { c.link = l }

// Abort ends a running handshake for the given cause, which becomes that of the
// HandshakeError: os.ErrDeadlineExceeded counts as ReasonTimeout, others as
// ReasonClosed. It may be called from any goroutine and more than once, and does
// nothing after the handshake. A handshake that is just computing, or has been
// granted a turn, ends in that turn. Whoever closes a connection calls it.
func (c *Conn) Abort(cause error) {
	if h := c.hs.Load(); h != nil {
		if cause == nil {
			cause = errAborted
		}
		if h.abort(cause) {
			h.wake()
		}
	}
}

// Handshaking reports whether Read has yet to see the end of the handshake. Any goroutine.
func (c *Conn) Handshaking() bool { return c.hs.Load() != nil }

// ConnectionState returns what was negotiated: nothing while handshaking, and
// what is known of it after a failure. It never blocks. For the owner.
func (c *Conn) ConnectionState() tls.ConnectionState {
	if c.Handshaking() {
		return tls.ConnectionState{}
	}
	return c.tls.ConnectionState()
}

// HandshakeTime returns the time from the complete ClientHello to the end of
// the handshake, the waiting for slots and for the peer included. For the owner.
func (c *Conn) HandshakeTime() time.Duration { return c.took }

// Buffered returns the number of wire bytes that came behind the handshake and
// that crypto/tls has not taken yet: while there are any, Read does not wait for
// the link. For the owner.
func (c *Conn) Buffered() int {
	if c.early == nil {
		return 0
	}
	return c.early.Len() - c.served
}
