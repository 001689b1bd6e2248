package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// conn is one client connection. Its holder owns it; see doc.go.
//
//	arrive    on the loop, new or given back   (this file)
//	serve     read, step, write                (this file)
//	upgrade   STARTTLS                         (upgrade.go)
//	leave     lend, and give back              (lend.go)
//	connect   dial a backend, and relay        (relay.go)
//	shut, end the good end, and the end        (close.go)
type conn struct {
	lst     *listener
	session codec.Session
	relay   *relay // the backend's side; nil without one
	stream
	peer    codec.Peer
	timer   timer
	started time.Duration
	holder  atomic.Uint32
	layer   layer
	move    move
	marks   marks
	why     Reason
}

// marks are what has happened to a connection.
type marks uint8

const (
	awaited marks = 1 << iota // the PROXY header has not come yet
	greeted                   // the session has begun
	blamed                    // why is set
	told                      // the end of the handshake is counted and logged
	torn                      // what was carried across unseen was cut short: no close_notify says that it is whole
)

func (m *marks) set(n marks)     { *m |= n }
func (m marks) has(n marks) bool { return m&n != 0 }

// client is whom the connection counts for; nobody while it is not known.
func (c *conn) client() netip.Prefix {
	if c.marks.has(awaited) {
		return netip.Prefix{}
	}
	return clientOf(c.peer.Remote.Addr())
}

// opened: the connection is on its loop, new or given back.
func (c *conn) opened(gc gnet.Conn, lp *loop) gnet.Action {
	if c.link.lp == nil {
		c.link.lp = lp
	}
	c.link.gc = gc
	c.setHolder(onLoop)
	return c.guarded((*conn).arrive)
}

// arrive begins the connection's stay on the loop. What came with it is served
// like input, because no event will come for it.
func (c *conn) arrive() gnet.Action {
	e := c.lst.eng
	if e.at() >= farewells {
		return c.dismiss()
	}
	c.move = stay
	switch {
	case c.marks.has(awaited):
		c.setDeadline(c.link.lp.now + c.lst.patience(c.lst.Limits.Handshake))
		return c.identify()
	case c.relay != nil:
		return c.relay.arrive()
	case c.layer == upgrading:
		c.setDeadline(c.timer.deadline) // absolute
	case c.marks.has(greeted):
		c.progress()
	case c.lst.Implicit:
		c.marks.set(greeted)
		if !c.implicitTLS() {
			return gnet.Close
		}
	default:
		c.marks.set(greeted)
		c.link.lp.out = c.session.Greet(c.link.lp.out)
		c.progress()
	}
	c.step(nil)
	return c.serve()
}

// traffic: the socket has something.
func (c *conn) traffic() gnet.Action { return c.guarded((*conn).serve) }

// closed: gnet is about to close the connection's descriptor.
func (c *conn) closed(gc gnet.Conn, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}()
	if errors.Is(err, io.EOF) && c.heldBy() == onLoop && c.relay != nil {
		c.relay.halfClosed()
	}
	c.link.gc = nil // from here on the descriptor may be another client's
	c.link.lp.timers.remove(c)
	if c.heldBy() == leaving {
		c.setHolder(lent)
		c.lst.eng.spawn(c.runLent)
		return
	}
	if err != nil || c.link.failure() != nil {
		c.tear()
	}
	c.dropRelay()
	switch {
	case errors.Is(err, io.EOF):
		c.end(ReasonPeerClosed)
	case err != nil:
		c.end(ReasonReset)
	default:
		c.end(ReasonDrained) // closed by the engine; who closed for another reason has blamed it
	}
}

// serve does all that can be done without waiting, and leaves the connection
// where its next move belongs.
func (c *conn) serve() gnet.Action {
	switch {
	case c.heldBy() == closing:
		return c.linger()
	case c.marks.has(awaited):
		return c.identify()
	case c.relay != nil:
		return c.relay.serve()
	}
	for c.move == stay && !c.link.blocked() {
		n, err := c.read(c.link.lp.scratch)
		if n > 0 {
			c.step(c.link.lp.scratch[:n])
		}
		if err != nil {
			if !errors.Is(err, tlsbridge.ErrWouldBlock) {
				c.readFailed(err)
			}
			break
		}
	}
	return c.settle()
}

// read reads decrypted bytes, once there is TLS. A handshake that is under way
// is fed and flushed by the same call.
func (c *conn) read(p []byte) (int, error) {
	if c.tls == nil {
		return c.link.Read(p)
	}
	n, err := c.tls.Read(p)
	if c.layer == upgrading && !c.tls.Handshaking() {
		c.handshakeOver(err)
	}
	return n, err
}

// readFailed: nothing more can be read.
func (c *conn) readFailed(err error) {
	c.move = bye
	var he *tlsbridge.HandshakeError
	switch {
	case errors.As(err, &he): // blamed by handshakeOver
	case errors.Is(err, io.EOF):
		c.blame(ReasonPeerClosed)
	default:
		c.blame(c.brokenBy(err))
	}
}

// brokenBy tells a transport that failed from TLS that did.
func (c *conn) brokenBy(err error) Reason {
	if errno := syscall.Errno(0); c.tls == nil || c.link.failure() != nil || errors.As(err, &errno) {
		return ReasonReset
	}
	return ReasonTLSError
}

// step gives the session all whole frames of the buffered input and of p, and
// keeps the rest. It stops early when the connection has to move or when replies
// no longer leave.
func (c *conn) step(p []byte) {
	data := c.join(p)
	for len(data) > 0 && c.move == stay && !c.link.blocked() && c.link.failure() == nil {
		n, out, action := c.session.Step(data, c.link.lp.out)
		data, c.link.lp.out = data[n:], out
		switch action {
		case codec.NeedMore:
			c.keep(data)
			return
		case codec.Continue:
			c.lst.stats.commands.Add(1)
			c.progress()
			if len(out) >= c.lst.Limits.Output {
				c.flush()
				c.link.push(false)
			}
		case codec.Upgrade:
			c.upgrade(len(data))
		case codec.Lend:
			c.move = lend
		case codec.Dial:
			c.move = dial
		case codec.Close:
			c.blame(ReasonDone)
			c.move = bye
		default:
			panic("engine: Step on the loop returned Return")
		}
	}
	c.keep(data)
}

// keep stores what is left of the input, unless nobody will want it.
func (c *conn) keep(rest []byte) {
	if c.move == bye {
		rest = nil
	}
	c.stream.keep(rest)
}

// flush gives the gathered replies to the link. A failure shows in link.err.
func (c *conn) flush() {
	c.write(c.link.lp.out)
	c.link.lp.out = c.link.lp.out[:0]
}

// write sends replies in whatever layer the connection is.
func (c *conn) write(p []byte) {
	var err error
	switch {
	case len(p) == 0:
		return
	case c.layer == plain:
		_, err = c.link.Write(p)
	case c.layer == secure:
		_, err = c.tls.Write(p)
	default:
		panic("engine: a plaintext reply after the go-ahead")
	}
	c.link.fail(err)
}

// settle ends an event: replies go out, and the connection goes where its move says.
func (c *conn) settle() gnet.Action {
	c.flush()
	if c.move == bye && c.layer == secure && c.link.failure() == nil && !c.marks.has(torn) {
		_ = c.tls.CloseNotify()
	}
	c.link.push(c.move == bye)
	c.link.lp.trim(4 * c.lst.Limits.Output)
	if c.move == bye {
		c.dropRelay()
	}
	switch {
	case c.link.failure() != nil:
		c.blame(ReasonReset)
		return gnet.Close
	case c.link.blocked() || c.move == lend || c.move == dial:
		return c.leave()
	case c.move == bye:
		return c.shut()
	default:
		return gnet.None
	}
}

func (c *conn) setDeadline(d time.Duration) { c.link.lp.timers.set(c, d) }

// progress: a command is complete, the time for the next begins.
func (c *conn) progress() {
	due := c.link.lp.now + c.lst.patience(c.lst.Limits.Command)
	if login := c.loginDue(); login != 0 && !c.settled() {
		due = min(due, login)
	}
	c.setDeadline(due)
}

// settled reports whether the client has logged in, in a session that tells.
func (c *conn) settled() bool {
	s, ok := c.session.(codec.Settler)
	return ok && s.LoggedIn()
}

// loginDue is when the client has to be logged in, or 0.
func (c *conn) loginDue() time.Duration {
	if c.lst.Limits.Login == 0 {
		return 0
	}
	return c.started + c.lst.Limits.Login
}

// expire: the deadline has passed.
func (c *conn) expire() gnet.Action {
	switch {
	case c.heldBy() == closing:
		return gnet.Close
	case c.marks.has(awaited):
		c.blame(ReasonProxyHeader)
		return gnet.Close
	case c.layer == upgrading:
		c.blame(ReasonHandshakeTimeout)
		c.tls.Abort(os.ErrDeadlineExceeded)
		c.handshakeFailed(tlsbridge.ReasonTimeout, os.ErrDeadlineExceeded)
		return gnet.Close
	}
	words := codec.TimedOut
	if r := c.relay; r != nil {
		if !r.overdue(c.link.lp.now) {
			c.setDeadline(r.due)
			return gnet.None
		}
		var why Reason
		_, why, words = r.patience()
		c.blame(why)
	}
	c.blame(ReasonCommandTimeout)
	return c.sayBye(words)
}

// dismiss: the engine is ending.
func (c *conn) dismiss() gnet.Action {
	e := c.lst.eng
	c.blame(ReasonDrained)
	switch {
	case e.at() == ending || c.layer == upgrading || !c.marks.has(greeted):
		return gnet.Close
	case c.heldBy() == closing:
		return gnet.None
	}
	return c.sayBye(codec.Draining)
}

func (c *conn) sayBye(r codec.Refusal) gnet.Action {
	if c.relay != nil {
		c.link.lp.out = c.relay.refuse(r, c.link.lp.out)
	} else {
		c.link.lp.out = c.session.Refuse(r, c.link.lp.out)
	}
	c.move = bye
	return c.settle()
}

// startAnew begins the session under TLS: nothing learnt in clear is kept (RFC 3207 §4.2).
func (c *conn) startAnew(state *tls.ConnectionState) {
	c.setLayer(secure)
	c.link.lp.out = c.session.Secured(state, c.link.lp.out)
	if c.lst.Implicit {
		c.link.lp.out = c.session.Greet(c.link.lp.out)
	}
	c.progress()
	if c.lst.Dial != nil { // it may want its backend at once
		var action codec.Action
		if _, c.link.lp.out, action = c.session.Step(nil, c.link.lp.out); action == codec.Dial {
			c.move = dial
		}
	}
}
