package engine

import (
	"context"
	"time"
)

// cutPatience is how long cut connections may take to be gone: the loops have
// to run and goroutines to notice.
const cutPatience = 10 * time.Second

// stop ends the engine in the one order that gnet bears: listeners, acceptors
// and enrolments, sessions, handshakes and lent goroutines, and only then the
// loops, because what is handed to a stopped loop is lost or worse.
func (e *Engine) stop(ctx context.Context) error {
	defer close(e.stopped)
	e.reach(draining)
	for _, l := range e.cfg.Listeners {
		_ = l.Listener.Close()
	}
	e.acceptors.Wait()

	gone := make(chan struct{})
	go func() {
		e.open.Wait()
		close(gone)
	}()
	var err error
	select {
	case <-gone:
	case <-ctx.Done():
		err = ctx.Err()
	case <-e.cut:
		err = context.Canceled
	}
	if err != nil {
		e.sayGoodbye(gone)
	}
	e.goroutines.Wait()
	close(e.stopTicker)
	e.ticker.Wait()
	if stopErr := e.client.Stop(); err == nil {
		err = stopErr
	}
	return err
}

// sayGoodbye ends the sessions that are left, in good order if there is time.
func (e *Engine) sayGoodbye(gone <-chan struct{}) {
	e.reach(leavings)
	e.rouse()
	patience := time.NewTimer(e.longestLinger() + time.Second)
	defer patience.Stop()
	select {
	case <-gone:
		return
	case <-patience.C:
	case <-e.cut:
	}
	e.reach(ending)
	deadline := time.After(cutPatience)
	for {
		// Again and again: a connection may be changing hands.
		e.rouse()
		select {
		case <-gone:
			return
		case <-deadline:
			e.log.Error("connections did not end", "open", e.stats.open.Load())
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *Engine) longestLinger() time.Duration {
	var d time.Duration
	for _, l := range e.cfg.Listeners {
		d = max(d, l.Limits.Linger)
	}
	return d
}

// rouse makes every connection look at the engine's stage.
func (e *Engine) rouse() {
	for _, lp := range *e.loops.Load() {
		_ = lp.el.Execute(context.Background(), dismissal{lp})
	}
	e.lentMu.Lock()
	defer e.lentMu.Unlock()
	for c := range e.lentSet {
		c.interrupt(e.at() == ending)
	}
}

// dismissal runs on a loop and ends the connections it holds.
type dismissal struct{ lp *loop }

func (d dismissal) Run(context.Context) error {
	d.lp.timers.each(func(c *conn) { d.lp.act(c, (*conn).dismiss) })
	return nil
}
