package engine

import (
	"context"
	"io"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// blame records why the connection ends. The first reason stands.
func (c *conn) blame(r Reason) {
	if !c.marks.has(blamed) {
		c.why = r
		c.marks.set(blamed)
	}
}

// shut ends our side on the loop: everything is written, so FIN, and then what
// the peer still sends is discarded until its FIN or the linger time. Closing
// with unread input would reset the connection and could take our last words
// with it.
func (c *conn) shut() gnet.Action {
	if err := unix.Shutdown(c.link.gc.Fd(), unix.SHUT_WR); err != nil {
		c.blame(ReasonReset)
		return gnet.Close
	}
	c.setHolder(closing)
	c.setDeadline(c.link.lp.now + c.lst.patience(c.lst.Limits.Linger))
	return c.linger()
}

// linger looks at what still comes in only to find the peer's close_notify:
// behind it there is nothing to wait for but the FIN, which the kernel does.
func (c *conn) linger() gnet.Action {
	if c.layer == secure {
		var err error
		for err == nil {
			_, err = c.tls.Read(c.link.lp.scratch)
		}
		if err == io.EOF {
			return gnet.Close
		}
	}
	_, _ = c.link.gc.Discard(-1)
	return gnet.None
}

// farewell is shut for a lent connection, blocking.
func (c *conn) farewell() {
	e, tc := c.lst.eng, c.link.off.tc
	if c.why == ReasonPanic || c.link.failure() != nil {
		return
	}
	_ = tc.SetDeadline(e.deadline(e.now() + c.lst.Limits.Linger))
	if e.at() == ending {
		return
	}
	if c.layer == secure && !c.marks.has(torn) {
		_ = c.tls.CloseNotify()
	}
	if tc.CloseWrite() != nil {
		return
	}
	buf := getBody()
	defer putBody(buf)
	for {
		if _, err := tc.Read(*buf); err != nil {
			return
		}
	}
}

// end is the last thing that happens to a connection, called by its holder when
// the socket is closed. why counts unless a reason was recorded before.
func (c *conn) end(why Reason) {
	e := c.lst.eng
	defer c.lst.leave(c.client(), c.layer) // as they are now: the loop may still look at a closed connection
	defer func() {
		untold := c.layer == upgrading && !c.marks.has(told)
		c.setHolder(closed)
		if untold {
			c.cutOff()
		}
	}()
	if c.layer == upgrading {
		c.blame(ReasonHandshakeFailed)
	}
	c.blame(why)
	c.dropRelay()
	release(&c.in)
	c.link.free()
	c.lst.stats.ended[c.why].Add(1)
	if tidy := c.tidy(); tidy != nil {
		e.spawn(tidy)
	}
}

// tidy logs and ends the session, and returns what is left to do for it, if anything.
func (c *conn) tidy() (work func()) {
	guard := func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}
	defer guard()
	c.logEnd()
	if work = c.session.End(); work == nil {
		return nil
	}
	end := work
	return func() {
		defer guard()
		end()
	}
}

// wakeContext is passed to gnet, which wants one with every task.
var wakeContext = context.Background()

// Run serves a wake-up on the loop. The connection may be anyone's by now, or gone.
func (c *conn) Run(context.Context) error {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}()
	switch c.heldBy() {
	case onLoop:
		c.link.lp.act(c, (*conn).serve)
	case closed:
		if c.layer == upgrading && !c.marks.has(told) {
			c.handshakeCutOff()
		}
	}
	return nil
}

// lifetime is how long the connection has been there.
func (c *conn) lifetime() time.Duration { return c.lst.eng.now() - c.started }
