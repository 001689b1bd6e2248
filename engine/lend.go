package engine

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"starttlsd/codec"
)

// leave takes the connection off its loop, with its backend's and all that was
// read for them. gnet closes its own descriptor; OnClose then starts the goroutine.
func (c *conn) leave() gnet.Action {
	err := c.link.leaveLoop()
	if err == nil && c.relay != nil {
		err = c.relay.leave()
	}
	if err != nil {
		c.outOf(err, "lending a connection")
		c.blame(ReasonNoDescriptor)
		c.link.hangUp()
		return gnet.Close
	}
	c.setHolder(leaving)
	return gnet.Close
}

// runLent is a lent connection's goroutine.
func (c *conn) runLent() {
	e := c.lst.eng
	err := c.link.adopt(e, false)
	if r := c.relay; err == nil && r != nil {
		if err = r.adopt(); err != nil && !short(err) {
			r.lost, err = true, nil // the client is still owed what has come from it
		}
	}
	if err != nil {
		if c.outOf(err, "lending a connection") {
			c.blame(ReasonNoDescriptor)
		}
		c.link.hangUp()
		c.end(ReasonReset)
		return
	}
	c.lst.stats.lent.Add(1)
	e.lentMu.Lock()
	e.lentSet[c] = struct{}{}
	e.lentMu.Unlock()

	c.workLent()
	if c.move == bye {
		c.dropRelay()
		c.setHolder(closing)
		c.farewell()
	}

	e.lentMu.Lock()
	delete(e.lentSet, c)
	e.lentMu.Unlock()
	c.lst.stats.lent.Add(-1)
	if c.move == bye {
		c.link.hangUp()
		c.end(ReasonReset)
		return
	}
	c.giveBack()
}

// adopt makes a blocking connection of the descriptor taken from gnet. Any
// failure but a lack of ours means that the peer is gone, which is none with gone.
func (l *link) adopt(e *Engine, gone bool) error {
	e.swap <- struct{}{}
	defer func() { <-e.swap }()
	f := os.NewFile(uintptr(l.off.fd), "")
	l.off.fd = 0
	nc, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return err
	}
	// A socket that was reset a moment ago has no peer any more; gnet would
	// panic over its nil address.
	tc, ok := nc.(*net.TCPConn)
	if !ok || !dropZones(tc) && !gone {
		_ = nc.Close()
		return net.ErrClosed
	}
	_ = tc.SetKeepAlive(false) // FileConn has switched it on
	l.off.tc = tc
	return nil
}

// short reports whether err is the lack of something of ours.
func short(err error) bool {
	return slices.ContainsFunc([]error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM},
		func(lack error) bool { return errors.Is(err, lack) })
}

// outOf is short, and warns of it once a second.
func (c *conn) outOf(err error, doing string) bool {
	if !short(err) {
		return false
	}
	c.lst.eng.shortage(doing, c.lst.Name, err)
	return true
}

// giveBack returns the connection to its loop, its backend's first. Unless the
// loop has taken it, it is still ours to end. Both sides go together: what comes from
// the backend in between is gnet's to keep.
func (c *conn) giveBack() {
	c.setHolder(returning)
	swap := c.lst.eng.swap
	swap <- struct{}{}
	defer func() { <-swap }()
	var err error
	if c.relay != nil {
		err = c.relay.giveBack()
	}
	if err == nil {
		if err = c.link.giveBack(c); err == nil {
			return
		}
		c.dropOnLoop()
	}
	c.link.hangUp()
	c.outOf(err, "giving a connection back")
	c.end(ReasonNoDescriptor)
}

// dropOnLoop drops a relay that is back on its loop, where its client is not.
func (c *conn) dropOnLoop() {
	done := make(chan struct{})
	if c.link.lp.el.Execute(context.Background(), runFunc(func() {
		defer close(done)
		c.dropRelay()
	})) == nil {
		<-done
	}
}

// runFunc is a gnet.Runnable.
type runFunc func()

func (f runFunc) Run(context.Context) error {
	f()
	return nil
}

// giveBack enrols the link with its loop, for r. After an error it is not there.
func (l *link) giveBack(r resident) error {
	tc := l.off.tc
	l.off.tc = nil
	l.back()
	_ = tc.SetDeadline(time.Time{})
	t := &ticket{who: r}
	done, err := l.lp.el.Enroll(gnet.NewContext(context.Background(), t), tc)
	if err != nil {
		_ = tc.Close()
		return err
	}
	err = (<-done).Err
	if t.used.Load() { // only OnOpen having run is success
		return nil
	}
	return cmp.Or(err, net.ErrClosed)
}

// interrupt makes a lent connection look at the engine's stage; cut also stops
// its writes. Called with lentMu held, so that the sockets are there.
func (c *conn) interrupt(cut bool) {
	c.link.interrupt(cut)
	if r := c.relay; r != nil {
		r.link.interrupt(cut)
	}
}

var past = time.Unix(1, 0)

func (l *link) interrupt(cut bool) {
	switch tc := l.tc(); {
	case tc == nil: // lost
	case cut:
		_ = tc.SetDeadline(past)
	default:
		_ = tc.SetReadDeadline(past)
	}
}

// workLent does what the connection was lent for. A panic ends this connection alone.
func (c *conn) workLent() {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
			c.move = bye
		}
	}()
	limits, now := &c.lst.Limits, c.lst.eng.now()
	deadline := now + limits.Command
	switch {
	case c.lst.eng.at() >= farewells:
		deadline = now + limits.Linger
	case c.layer == upgrading:
		deadline = c.timer.deadline
	}
	if r := c.relay; r != nil && !r.lost {
		r.carry()
		return
	}
	if err := c.link.drain(c.lst.eng.deadline(deadline)); err != nil {
		c.outputFailed(err)
		return
	}
	switch {
	case c.relay != nil: // lost
		c.tear()
		c.move = bye
		c.blame(ReasonBackendLost)
		c.writeLent(c.relay.refuse(codec.Unavailable, nil))
	case c.move == dial:
		c.connect()
	case c.move == lend && c.mayOpen():
		defer c.lst.eng.files.Release(1)
		c.stepLent()
	}
}

// mayOpen waits for the descriptor that the session's work may need, such as a
// message's file. Connections draw from the same stock.
func (c *conn) mayOpen() bool {
	e := c.lst.eng
	if e.files.TryAcquire(1) {
		return true
	}
	e.shortage("waiting to open a file", c.lst.Name, unix.EMFILE)
	ctx, cancel := context.WithTimeout(e.goodbye, c.lst.Limits.BodyStall)
	defer cancel()
	if e.files.Acquire(ctx, 1) == nil {
		return true
	}
	if e.at() >= farewells {
		c.bodyFailed(errDraining)
		return false
	}
	c.move = bye
	c.blame(ReasonNoDescriptor)
	c.writeLent(c.session.Refuse(codec.Busy, nil))
	return false
}

// stepLent runs the session's steps that may wait, until it returns to the loop
// and no command follows at once, or the connection is to end.
func (c *conn) stepLent() {
	body := body{c: c, began: c.lst.eng.now()}
	defer body.free()
	waits := true // the session is between Lend and Return
	var data, out []byte
	if c.in != nil {
		data = c.in.B
	}
	for {
		n, replies, action := c.session.Step(data, out)
		data, out = data[n:], replies
		if action != codec.Continue || len(out) >= c.lst.Limits.Output {
			if !c.writeLent(out) {
				return
			}
			out = out[:0]
		}
		switch action {
		case codec.Return:
			if c.layer != secure { // the next command may be STARTTLS, which is the loop's
				c.move = stay
				c.keep(data)
				return
			}
			waits = false
		case codec.Lend:
			waits = true
			body.began, body.got = c.lst.eng.now(), 0
		case codec.Close:
			c.blame(ReasonDone)
			c.move = bye
			return
		case codec.Upgrade:
			panic("engine: STARTTLS where the session may wait")
		case codec.NeedMore:
			var err error
			if waits {
				data, err = body.more(data)
			} else if data, err = body.soon(data); errors.Is(err, errIdle) {
				c.move = stay
				c.keep(data)
				return
			}
			if err != nil {
				c.bodyFailed(err)
				return
			}
		}
	}
}

// writeLent writes replies, blocking. It reports whether that went well.
func (c *conn) writeLent(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	e := c.lst.eng
	_ = c.link.off.tc.SetWriteDeadline(e.deadline(e.now() + c.lst.Limits.Command))
	if e.at() == ending {
		c.interrupt(true)
	}
	c.write(p)
	if c.link.failure() != nil {
		c.outputFailed(c.link.failure())
	}
	return c.link.failure() == nil
}

func (c *conn) outputFailed(err error) {
	c.move = bye
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		c.blame(ReasonReset)
	case c.lst.eng.at() == ending:
		c.blame(ReasonDrained)
	case c.layer == upgrading:
		c.blame(ReasonHandshakeTimeout)
	default:
		c.blame(ReasonOutputTimeout)
	}
}

// bodyFailed: no more of the body will come. What has come is the session's to
// discard; nothing incomplete is ever delivered.
func (c *conn) bodyFailed(err error) {
	c.move = bye
	var words codec.Refusal
	switch {
	case errors.Is(err, errDraining):
		c.blame(ReasonDrained)
		words = codec.Draining
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.blame(ReasonBodyTimeout)
		words = codec.TimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // with and without close_notify
		c.blame(ReasonPeerClosed)
		return
	default:
		c.blame(c.brokenBy(err))
		return
	}
	c.writeLent(c.session.Refuse(words, nil))
}
