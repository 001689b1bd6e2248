package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/tlsbridge"
)

// readSize is what a loop reads at once. It is more than a TLS record holds, so
// one Read always empties crypto/tls of decrypted bytes.
const readSize = 32 << 10

// loop is what one event loop owns. Everything in it but ticking is the loop's alone.
type loop struct {
	eng       *Engine
	el        gnet.EventLoop
	timers    wheel
	now       time.Duration // taken once an event
	scratch   []byte        // input of the event being served
	out       []byte        // replies of the event being served, not yet given to the link
	wire      []byte        // its output, not yet given to the socket
	up        []byte        // what the event has for a backend
	serving   *relay        // whose backend's event is being served
	left      bool          // it has left the loop in that event
	lane      *tlsbridge.Lane
	turn      turn        // to be computed next
	computing bool        // handshakes are being computed, or are about to be
	ticking   atomic.Bool // a tick is on its way
}

// loopOf finds the loop that el is. A handle on a loop comes only with a connection.
func (e *Engine) loopOf(el gnet.EventLoop) *loop {
	for _, lp := range *e.loops.Load() {
		if lp.el == el {
			return lp
		}
	}
	e.loopsMu.Lock()
	defer e.loopsMu.Unlock()
	lp := &loop{eng: e, el: el, scratch: make([]byte, readSize), lane: e.slots.NewLane(1)}
	lp.timers.turn = int64(e.now() / tick)
	loops := append(append([]*loop(nil), *e.loops.Load()...), lp)
	e.loops.Store(&loops)
	return lp
}

// tickLoops drives the deadlines of all loops. A loop that is still busy with
// the last tick is left alone.
func (e *Engine) tickLoops() {
	defer e.ticker.Done()
	t := time.NewTicker(tick)
	defer t.Stop()
	mem := newMemoryPolicy(e.cfg.TuneMemory)
	var stress stress
	for {
		select {
		case <-e.stopTicker:
			return
		case <-t.C:
		}
		for _, lp := range *e.loops.Load() {
			if lp.ticking.CompareAndSwap(false, true) {
				_ = lp.el.Execute(context.Background(), lp)
			}
		}
		mem.tick(e.admitted.Load(), e.upgrades.Load())
		stress.tick(e, time.Now())
	}
}

// Run serves one tick, on the loop.
func (lp *loop) Run(context.Context) error {
	lp.ticking.Store(false)
	lp.now = lp.eng.now()
	lp.timers.advance(lp.now, func(c *conn) { lp.act(c, (*conn).expire) })
	return nil
}

// trim gives up buffers that one event has made large.
func (lp *loop) trim(most int) {
	if cap(lp.out) > most {
		lp.out = nil
	}
	if cap(lp.wire) > most {
		lp.wire = nil
	}
	if cap(lp.up) > most {
		lp.up = nil
	}
}

// act does work on a connection outside of gnet's events, on the loop.
func (lp *loop) act(c *conn, work func(*conn) gnet.Action) {
	gc := c.link.gc
	if c.guarded(work) == gnet.Close {
		_ = lp.el.Close(gc)
	}
}

// guarded does work and turns a panic into the end of this connection alone.
func (c *conn) guarded(work func(*conn) gnet.Action) (action gnet.Action) {
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
			action = gnet.Close
		}
	}()
	lp := c.link.lp
	lp.now = c.lst.eng.now()
	lp.out, lp.wire = lp.out[:0], lp.wire[:0] // what a panic has left was another's
	return work(c)
}

// panicked records a bug. The session is not asked for words: it may be what is broken.
func (c *conn) panicked(v any) {
	c.lst.eng.panicked(c.peer.ID, v)
	c.why = ReasonPanic
	c.marks.set(blamed)
}
