package engine

import (
	"context"
	"errors"
	"io"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// maxHeld bounds what is kept of a client that has to wait for its backend: over
// it, the pair is lent, which is the way to stop reading.
const maxHeld = 16 << 10

// arrive begins the pair's stay on the loop, with what came with it.
func (r *relay) arrive() gnet.Action {
	c := r.c
	switch {
	case r.lost:
		return c.backendLost()
	case r.link.gc == nil && !r.held: // the backend's direction ended when the client was not here yet
		c.move = lend
		return c.settle()
	case r.asked:
		r.asked = false
		behind := 0
		if c.in != nil {
			behind = len(c.in.B)
		}
		c.upgrade(behind)
	default:
		r.again(r.fresh)
		r.fresh = false
	}
	return c.serve()
}

// again has the session look at what is there once more: at what came with the pair,
// and at its data connections.
func (r *relay) again(once bool) {
	r.hold = false
	r.forward(nil, once || r.data != nil)
	if r.c.relay != nil && r.c.move == stay {
		r.reply(nil)
	}
}

// poke has the session look at its data connections again. Any goroutine.
func (c *conn) poke() {
	_ = c.link.lp.el.Execute(wakeContext, poke{c})
	e := c.lst.eng
	e.lentMu.Lock()
	r := c.relay
	var l *carriage
	if r != nil {
		l = r.lent
	}
	e.lentMu.Unlock()
	if l != nil {
		e.spawn(func() { l.poke(r) }) // its lock is held while the client is written to
	}
}

// poke is for a pair on its loop. One that is on its way there, or away, looks by
// itself when it has arrived.
type poke struct{ c *conn }

func (t poke) Run(context.Context) error {
	if c := t.c; c.heldBy() == onLoop && c.relay != nil {
		c.link.lp.act(c, func(c *conn) gnet.Action {
			c.relay.progress()
			c.relay.again(true)
			return c.serve()
		})
	}
	return nil
}

// serve carries across all that can be without waiting.
func (r *relay) serve() gnet.Action {
	c := r.c
	for c.relay != nil && c.move == stay && !c.link.blocked() && !r.link.blocked() {
		up := r.fromClient()
		down := c.relay != nil && c.move == stay && r.fromBackend()
		if !up && !down {
			break
		}
	}
	if c.relay == nil { // left for TLS
		return c.settle()
	}
	r.count()
	if c.move == stay && r.link.failure() != nil {
		return c.backendLost()
	}
	if c.move == stay && r.link.blocked() {
		c.move = lend
	}
	if c.move == stay {
		c.setDeadline(r.due)
	}
	return c.settle()
}

// fromClient reads once. It reports whether there was anything.
func (r *relay) fromClient() bool {
	c := r.c
	if c.in != nil && len(c.in.B) > maxHeld {
		c.move = lend
		return false
	}
	n, err := c.read(r.link.lp.scratch)
	c.link.push(false) // what TLS has to say, such as to a KeyUpdate
	if n > 0 {
		r.forward(r.link.lp.scratch[:n], false)
	}
	switch {
	case err == nil, errors.Is(err, tlsbridge.ErrWouldBlock), c.relay == nil, c.move == bye:
	case errors.Is(err, io.EOF) && (r.opaque || r.hold || r.session.Outstanding()):
		r.upEnded = true // replies may still come
		c.move = lend
	default:
		c.tear()
		c.readFailed(err)
	}
	return n > 0
}

// forward gives the session, or the backend, what the client has sent before and p.
func (r *relay) forward(p []byte, once bool) {
	c, lp := r.c, r.link.lp
	data := c.join(p)
	up := lp.up[:0]
	more := true
	for more && (len(data) > 0 || once) && c.move == stay && !r.hold {
		once = false
		if r.opaque {
			r.send(data)
			data = nil
			r.progress()
			break
		}
		var n int
		var action codec.Action
		n, up, lp.out, action = r.session.Forward(data, up, lp.out)
		data = data[n:]
		r.forwarded(action, n)
		switch action {
		case codec.NeedMore:
			more = false
		case codec.Continue, codec.Content:
		case codec.Hold:
			r.hold, more = len(data) > 0, false
		case codec.Upgrade:
			r.send(up)
			up = up[:0]
			c.upgrade(len(data))
			if c.relay == nil {
				return
			}
		case codec.Close:
			c.blame(ReasonDone)
			c.move = bye
		default:
			panic("engine: an Action that Forward may not return")
		}
		if len(up) >= c.lst.Limits.Output {
			r.send(up)
			up = up[:0]
		}
	}
	lp.up = up
	r.send(up)
	c.flush()
	c.link.push(false)
	c.keep(data)
}

// send writes to the backend.
func (r *relay) send(p []byte) {
	if len(p) > 0 {
		r.link.fail(r.write(p))
		r.link.push(false)
	}
}

// fromBackend is fromClient for the other direction.
func (r *relay) fromBackend() bool {
	c := r.c
	n, err := r.read(r.link.lp.scratch)
	r.link.push(false)
	ended := err != nil && !errors.Is(err, tlsbridge.ErrWouldBlock)
	if n > 0 || ended && r.held {
		r.reply(r.link.lp.scratch[:n])
	}
	switch {
	case !ended, c.relay == nil, c.move == bye, r.held: // a poke will follow, and the end be seen again
	case errors.Is(err, io.EOF) && r.opaque:
		r.downEnded = true
		c.move = lend
	default:
		c.tear()
		c.blame(ReasonBackendLost)
		c.link.lp.out = r.refuse(codec.Unavailable, c.link.lp.out)
		c.move = bye
	}
	return n > 0
}

// reply gives the session, or the client, what the backend has sent before and p.
func (r *relay) reply(p []byte) {
	c, lp := r.c, r.link.lp
	data := r.join(p)
	more := true
	for more && len(data) > 0 && c.move == stay {
		if r.opaque {
			c.flush()
			c.write(data)
			c.link.push(false)
			data = nil
			r.progress()
			break
		}
		var n int
		var action codec.Action
		n, lp.out, action = r.session.Reply(data, lp.out)
		data = data[n:]
		r.held = action == codec.Hold
		switch action {
		case codec.NeedMore, codec.Hold:
			more = false
		case codec.Content:
			r.progress()
		case codec.Continue, codec.Opaque:
			r.hold, r.opaque = false, action == codec.Opaque
			r.progress()
			if c.in != nil {
				r.forward(nil, false)
			}
			if c.relay == nil {
				return
			}
		case codec.Close:
			c.blame(ReasonDone)
			c.move = bye
		default:
			panic("engine: an Action that Reply may not return")
		}
		if len(lp.out) >= c.lst.Limits.Output {
			c.flush()
			c.link.push(false)
		}
	}
	c.flush()
	c.link.push(false)
	r.keep(data)
}

// refuse is the session's words, where there is still a dialogue.
func (r *relay) refuse(words codec.Refusal, out []byte) []byte {
	if r.opaque {
		return out
	}
	return r.session.Refuse(words, out)
}
