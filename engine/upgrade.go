package engine

import (
	"context"
	"errors"
	"net"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// upgrade is the one way from plaintext to TLS, for every protocol. It runs in
// the step that parsed STARTTLS, on the loop; behind counts the bytes that
// followed it in the buffer.
//
// Plaintext behind STARTTLS is never executed and never dropped in silence: no
// go-ahead, an error, and the end. All that can fail on our side fails before the
// go-ahead, with the dialogue going on in plaintext. After it there is only TLS.
func (c *conn) upgrade(behind int) {
	e, lp := c.lst.eng, c.link.lp
	if behind > 0 || c.link.buffered() > 0 {
		c.lst.stats.injected.Add(1)
		e.refusals.add(c.peer.Remote.Addr(), c.lst.Name, ReasonInjected.String())
		e.log.Warn("plaintext behind STARTTLS, closing", "id", c.peer.ID, "listener", c.lst.Name,
			"peer", c.peer.Remote, "bytes", behind+c.link.buffered())
		lp.out = c.session.Refuse(codec.Injected, lp.out)
		c.blame(ReasonInjected)
		c.move = bye
		return
	}
	permit, err := c.permit()
	if err != nil {
		c.notNow()
		e.log.Debug("STARTTLS refused", "id", c.peer.ID, "peer", c.peer.Remote, "err", err)
		lp.out = c.session.Refuse(codec.TLSUnavailable, lp.out)
		c.progress()
		return
	}
	defer permit.Release() // should GoAhead panic; nothing once TLS has it
	c.dropRelay()          // of the plaintext session
	lp.out = c.session.GoAhead(lp.out)
	c.flush()
	release(&c.in)
	c.startTLS(permit)
}

// implicitTLS starts TLS at once, or reports that it cannot: then there are no
// words to say either.
func (c *conn) implicitTLS() bool {
	permit, err := c.permit()
	if err != nil {
		c.notNow()
		c.blame(ReasonNoTLS)
		return false
	}
	c.startTLS(permit)
	return true
}

// notNow takes note of TLS that cannot be served.
func (c *conn) notNow() {
	c.lst.stats.refused.Add(1)
	c.lst.eng.refusals.add(c.peer.Remote.Addr(), c.lst.Name, "tls_unavailable")
}

var (
	errNoTLS    = errors.New("no TLS configuration")
	errDraining = errors.New("draining")
	errRate     = errors.New("too many handshakes from this client")
)

// permit checks everything that could fail on our side.
func (c *conn) permit() (*tlsbridge.Permit, error) {
	e := c.lst.eng
	switch client := c.client(); {
	case c.lst.TLS == nil:
		return nil, errNoTLS
	case e.at() >= draining:
		return nil, errDraining
	case !c.lst.door.mayHandshake(client):
		return nil, errRate
	case c.lst.TLSWaits:
		return e.slots.Reserve(c.lst.door.limited(client))
	default:
		return c.link.lp.lane.Reserve(c.lst.door.limited(client))
	}
}

func (c *conn) startTLS(permit *tlsbridge.Permit) {
	e := c.lst.eng
	c.setLayer(upgrading)
	c.setDeadline(c.link.lp.now + c.lst.patience(c.lst.Limits.Handshake))
	opts := tlsbridge.Options{
		Permit: permit,
		Budget: c.lst.Limits.HandshakeInput,
		Go:     c.takeTurn,
		OnPanic: func(v any, stack []byte) {
			e.panics.Add(1)
			e.log.Error("panic in a TLS callback", "id", c.peer.ID, "panic", v, "stack", string(stack))
		},
	}
	if c.lst.TLSWaits {
		opts.Go, opts.Wake = e.spawn, c.wake
	}
	if c.lst.Data != nil && c.lst.Data.Bound {
		opts.Binding = new(tlsbridge.Binding)
	}
	c.tls = tlsbridge.Server(&c.link, c.lst.TLS, opts)
}

// wake brings the loop back to a connection whose handshake has moved on. Any goroutine.
func (c *conn) wake() { _ = c.link.lp.el.Execute(wakeContext, c) }

// handshakeOver runs on the loop as soon as the handshake has ended, before any
// byte that followed it is looked at.
func (c *conn) handshakeOver(err error) {
	e := c.lst.eng
	var he *tlsbridge.HandshakeError
	if errors.As(err, &he) {
		c.blame(ReasonHandshakeFailed)
		c.handshakeFailed(he.Reason, he.Err)
		return
	}
	c.marks.set(told)
	e.upgrades.Add(1)
	state := c.tls.ConnectionState()
	c.lst.stats.upgraded(&state, c.tls.HandshakeTime())
	c.startAnew(&state)
}

// cutOff has the loop see to the handshake of a connection that is closed: the
// turns are the loop's, also when the connection ended on a goroutine. The
// engine's end waits for it.
func (c *conn) cutOff() {
	e := c.lst.eng
	e.goroutines.Add(1)
	if c.link.lp.el.Execute(wakeContext, cutOff{c}) != nil {
		e.goroutines.Done()
	}
}

type cutOff struct{ c *conn }

func (t cutOff) Run(ctx context.Context) error {
	defer t.c.lst.eng.goroutines.Done()
	return t.c.Run(ctx)
}

// handshakeCutOff is for a connection that has ended in its handshake. What came
// before the end, such as the alert that says why, may still be on its way to
// crypto/tls: then another wake-up comes when it was seen.
func (c *conn) handshakeCutOff() {
	var he *tlsbridge.HandshakeError
	_, err := c.tls.Read(nil) // the link is closed: it says so
	switch {
	case errors.As(err, &he):
		c.handshakeFailed(he.Reason, he.Err)
	case !c.tls.Handshaking(): // it succeeded, too late
		c.handshakeFailed(tlsbridge.ReasonClosed, net.ErrClosed)
	}
}

func (c *conn) handshakeFailed(reason tlsbridge.Reason, err error) {
	e := c.lst.eng
	c.marks.set(told)
	c.lst.stats.failed.Add(1)
	c.lst.stats.failedBy[reason].Add(1)
	e.log.Info("handshake failed", "id", c.peer.ID, "listener", c.lst.Name, "peer", c.peer.Remote,
		"reason", reason, "sni", hostName(c.tls.ConnectionState()), "err", err)
}
