package engine

import (
	"context"
	"time"
)

// turnTime is how long a loop computes handshakes before it looks at its sockets
// again: what a flood of handshakes adds to the latency of an established session.
const turnTime = 500 * time.Microsecond

// turn is a handshake's turn to compute on its connection's loop.
type turn struct {
	c       *conn // nil: nobody's
	compute func()
}

// takeTurn is called on the loop when the handshake can go on. The loop's lane
// has one slot, so that no other turn is pending.
func (c *conn) takeTurn(compute func()) {
	lp := c.link.lp
	lp.eng.goroutines.Add(1)
	lp.turn = turn{c, compute}
	if !lp.computing {
		lp.computing = true
		_ = lp.el.Execute(context.Background(), turns{lp})
	}
}

// turns is the task of computing handshakes, on the loop.
type turns struct{ lp *loop }

// Run gives one handshake after the other its turn, until none is ready or the
// time is up. A task that follows at once would be served before the sockets are,
// so the next comes by way of a goroutine.
func (t turns) Run(ctx context.Context) error {
	lp := t.lp
	for began := time.Now(); lp.turn.c != nil; {
		if time.Since(began) > turnTime {
			go func() { _ = lp.el.Execute(ctx, t) }()
			return nil
		}
		now := lp.turn
		lp.turn = turn{}
		now.take(ctx)
	}
	lp.computing = false
	return nil
}

// take computes, and lets the connection go on with what has come of it.
func (t turn) take(ctx context.Context) {
	defer t.c.lst.eng.goroutines.Done()
	defer func() {
		if v := recover(); v != nil {
			t.c.panicked(v)
		}
	}()
	t.compute()
	_ = t.c.Run(ctx)
}
