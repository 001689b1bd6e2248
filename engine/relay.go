package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// Upstream is a connection to a backend, to which the session was introduced.
type Upstream struct {
	TCP   *net.TCPConn    // becomes the engine's; without deadlines
	TLS   *tlsbridge.Conn // nil in plaintext
	Ahead []byte          // decrypted, and not consumed by the session

	// Secure does the handshake of a data connection, as its client; nil: they are in
	// clear. It is called on a goroutine, until ctx is done at the latest.
	Secure func(ctx context.Context, tcp *net.TCPConn) (*tlsbridge.Conn, error)
}

// relay is the backend's side of a connection. The pair has one holder: both sides
// are on the same loop (pump.go), or with two goroutines (carry.go). Only on the
// way to the loop is the backend there before the client: what comes then is kept.
type relay struct {
	c       *conn
	session codec.Relayed
	stream                // the backend's
	due     time.Duration // when the pair has been idle for too long
	content content
	data    *channel  // nil where there are no data connections
	lent    *carriage // nil on the loop

	opaque    bool                    // bytes are carried across unseen
	hold      bool                    // the client's bytes wait for a reply
	held      bool                    // the backend's wait for a data connection
	fresh     bool                    // Forward was not called yet
	asked     bool                    // for STARTTLS, while lent: the upgrade is the loop's
	lost      bool                    // the backend was reset while the pair changed hands
	told      struct{ in, out int64 } // bytes of link that are counted
	upEnded   bool                    // the client has ended its direction
	downEnded bool                    // the backend has; or it has gone, while what it has said last is held
}

// content is a message that the client is sending, or the like.
type content struct {
	began time.Duration // 0: none
	got   int
}

// connect dials the backend, in the connection's place. Lent.
func (c *conn) connect() {
	e := c.lst.eng
	if !c.mayOpen() {
		return
	}
	defer func() {
		if c.relay == nil {
			e.files.Release(1)
		}
	}()
	client := &codec.Client{Peer: &c.peer}
	var data *channel
	if c.lst.Data != nil {
		data = &channel{c: c}
		client.Data = data
	}
	if c.layer == secure {
		state := c.tls.ConnectionState()
		client.TLS = &state
	}
	up, err := c.dial(client)
	if err != nil {
		c.move = bye
		words := codec.Unavailable
		if e.at() >= farewells {
			c.blame(ReasonDrained)
			words = codec.Draining
		} else {
			c.lst.stats.dialFailed.Add(1)
			c.blame(ReasonNoBackend)
			e.log.Warn("no backend", "id", c.peer.ID, "listener", c.lst.Name, "err", err)
		}
		c.writeLent(c.session.Refuse(words, nil))
		return
	}
	c.lst.stats.dialed.Add(1)
	c.lst.stats.relayed.Add(1)
	r := &relay{c: c, session: c.session.(codec.Relayed), data: data, fresh: true}
	if data != nil {
		data.backend, data.secure = up.TCP.RemoteAddr().(*net.TCPAddr).AddrPort(), up.Secure
	}
	r.link.lp, r.tls = c.link.lp, up.TLS
	r.link.detour().tc = up.TCP
	if r.tls != nil {
		r.tls.SetLink(&r.link)
	}
	r.keep(up.Ahead)
	r.progress()
	e.lentMu.Lock() // for interrupt
	c.relay = r
	e.lentMu.Unlock()
	c.move = stay
}

var errNoDial = errors.New("the listener has no backend, or a session that takes none")

// dial connects the session to its backend.
func (c *conn) dial(client *codec.Client) (Upstream, error) {
	session, ok := c.session.(codec.Relayed)
	if !ok || c.lst.Dial == nil {
		return Upstream{}, errNoDial
	}
	up, err := c.lst.Dial(c.lst.eng.goodbye, session, client)
	if err == nil && !dropZones(up.TCP) { // as accept does
		_ = up.TCP.Close()
		err = errLost
	}
	return up, err
}

// dropRelay ends the backend's connection. For the pair's holder.
func (c *conn) dropRelay() {
	r := c.relay
	if r == nil {
		return
	}
	e := c.lst.eng
	e.lentMu.Lock() // from interrupt
	c.relay = nil
	e.lentMu.Unlock()
	if r.data != nil {
		r.data.close(false)
	}
	if r.tls != nil && !c.marks.has(torn) && r.link.failure() == nil && (r.link.gc != nil || r.link.tc() != nil) {
		_ = r.tls.CloseNotify()
		if r.link.gc != nil {
			r.link.push(true)
		}
	}
	if gc := r.link.gc; gc != nil {
		r.link.gc = nil
		r.link.lp.letGo(r, gc)
	}
	r.link.hangUp()
	release(&r.in)
	r.link.free()
	r.count()
	e.files.Release(1)
	c.lst.stats.relayed.Add(-1)
}

// tear notes that a side has ended without saying so. While there is a dialogue, it
// tells what is whole.
func (c *conn) tear() {
	if c.relay != nil && c.relay.opaque {
		c.marks.set(torn)
	}
}

// letGo has gnet close gc, which is r's and is nobody's from here on.
func (lp *loop) letGo(r *relay, gc gnet.Conn) {
	gc.SetContext(nil)
	if lp.serving == r {
		lp.left = true // its event ends with the close
	} else {
		_ = lp.el.Close(gc)
	}
}

// opened: the backend's connection is on its loop.
func (r *relay) opened(gc gnet.Conn, _ *loop) gnet.Action {
	r.link.gc = gc
	return gnet.None
}

// traffic: the backend has sent something. While the client is on its way, gnet
// keeps it.
func (r *relay) traffic() gnet.Action {
	c, lp := r.c, r.link.lp
	if c.heldBy() != onLoop {
		return gnet.None
	}
	lp.serving, lp.left = r, false
	lp.act(c, (*conn).serve)
	lp.serving = nil
	if lp.left {
		return gnet.Close
	}
	return gnet.None
}

// closed: the backend has ended the connection. It may have done so for its
// direction alone, so it is kept where the session does not know better; and so is the
// pair while what it has said last waits for a transfer.
func (r *relay) closed(_ gnet.Conn, err error) {
	c := r.c
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}()
	back := c.heldBy() == returning
	keep := (r.held || errors.Is(err, io.EOF) && (back || r.opaque)) && r.link.leaveLoop() == nil
	r.link.gc = nil
	switch {
	case back:
		r.lost = !keep
	case keep && r.held:
		r.link.lp.act(c, (*conn).serve)
	case keep:
		r.link.lp.act(c, func(c *conn) gnet.Action {
			c.move = lend
			return c.settle()
		})
	default:
		r.link.lp.act(c, (*conn).backendLost)
	}
}

// backendLost ends a connection whose backend has gone. On the loop.
func (c *conn) backendLost() gnet.Action {
	c.tear()
	c.blame(ReasonBackendLost)
	return c.sayBye(codec.Unavailable)
}

// halfClosed has a pair lent whose client has ended its direction, if anything may
// still come for the client. On the loop, in OnClose.
func (r *relay) halfClosed() {
	c := r.c
	if !r.opaque && !r.session.Outstanding() && !r.hold {
		return
	}
	if c.leave(); c.heldBy() != leaving {
		c.link.hangUp()
	}
}

// leave takes the backend's side off the loop, unless it has left.
func (r *relay) leave() error {
	gc := r.link.gc
	if gc == nil {
		return nil
	}
	if err := r.link.leaveLoop(); err != nil {
		return err
	}
	r.link.lp.letGo(r, gc)
	return nil
}

// adopt is link.adopt.
func (r *relay) adopt() error {
	if r.link.tc() != nil { // it has not been on the loop yet
		return nil
	}
	return r.link.adopt(r.c.lst.eng, r.held)
}

// count adds the bytes that have gone across to the counters. For the pair's holder.
func (r *relay) count() {
	stats := r.c.lst.stats
	stats.toBackend.Add(uint64(r.link.out - r.told.out))
	stats.fromBackend.Add(uint64(r.link.in - r.told.in))
	r.told.in, r.told.out = r.link.in, r.link.out
}

// giveBack returns the backend's side to the loop.
func (r *relay) giveBack() error {
	r.count()
	return r.link.giveBack(r)
}

// patience is how long the pair may now be idle, and what follows.
func (r *relay) patience() (time.Duration, Reason, codec.Refusal) {
	limits := &r.c.lst.Limits
	switch {
	case r.downEnded && r.opaque:
		return limits.Linger, ReasonBackendClosed, 0
	case r.upEnded:
		return limits.Reply, ReasonPeerClosed, 0
	case r.opaque:
		return limits.Idle, ReasonIdle, 0
	case r.content.began != 0:
		left := limits.slowest(r.content.began, int64(r.content.got)) - r.c.lst.eng.now()
		return min(limits.BodyStall, left), ReasonBodyTimeout, codec.TimedOut
	case r.session.Outstanding():
		return limits.Reply, ReasonBackendTimeout, codec.Unavailable
	case r.settled():
		return limits.Idle, ReasonIdle, codec.TimedOut
	default:
		return r.c.lst.patience(limits.Command), ReasonCommandTimeout, codec.TimedOut
	}
}

// progress: something went across, so that the time begins anew.
func (r *relay) progress() {
	patience, _, _ := r.patience()
	r.due = r.c.lst.eng.now() + patience
	if login := r.c.loginDue(); login != 0 && !r.settled() {
		r.due = min(r.due, login)
	}
}

// settled reports whether the client has logged in.
func (r *relay) settled() bool { return r.opaque || r.c.settled() }

// overdue reports whether the pair has been idle for too long. While a transfer gets
// on, it is not.
func (r *relay) overdue(now time.Duration) bool {
	if now >= r.due && r.data.busy() {
		r.progress()
	}
	return now >= r.due
}

// forwarded takes note of what Forward has consumed.
func (r *relay) forwarded(action codec.Action, n int) {
	switch action {
	case codec.Content:
		if r.content.began == 0 {
			r.content.began = r.c.lst.eng.now()
		}
		r.content.got += n
	case codec.Continue:
		r.c.lst.stats.commands.Add(1)
		r.content = content{}
	case codec.Upgrade: // which may be refused
	default:
		return
	}
	r.progress()
}
