package engine

import (
	"context"
	"errors"
	"time"
)

// cutPatience is how long cut connections may take to be gone: the loops have
// to run and goroutines to notice.
const cutPatience = 5 * time.Second

// stop ends the engine in the one order that gnet bears: listeners, acceptors
// and enrolments, sessions, handshakes and lent goroutines, and only then the
// loops, because what is handed to a stopped loop is lost or worse.
func (e *Engine) stop(ctx context.Context) error {
	defer close(e.stopped)
	for _, s := range e.Served() {
		_ = s.Close()
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
	if err != nil && !e.dismissAll(gone) {
		return errStuck
	}
	done := make(chan struct{})
	go func() {
		e.goroutines.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(cutPatience):
		return errStuck
	}
	close(e.stopTicker)
	e.ticker.Wait()
	if stopErr := e.client.Stop(); err == nil {
		err = stopErr
	}
	return err
}

// errStuck: something waits that cannot be interrupted, such as a write to a
// dead disk. The loops are left running, because what is handed to a stopped one
// is lost or worse; the process should exit.
var errStuck = errors.New("engine: some connections did not end")

// dismissAll ends the sessions that are left, in good order unless the engine is
// being cut off. It reports whether all are gone.
func (e *Engine) dismissAll(gone <-chan struct{}) bool {
	select {
	case <-e.cut:
	default:
		e.reach(farewells)
		e.sayBye()
		e.rouse()
		patience := time.NewTimer(e.longestLinger() + time.Second)
		defer patience.Stop()
		select {
		case <-gone:
			return true
		case <-patience.C:
		case <-e.cut:
		}
	}
	e.reach(ending)
	e.sayBye()
	deadline := time.After(cutPatience)
	for {
		// Again and again: a connection may be changing hands.
		e.rouse()
		select {
		case <-gone:
			return true
		case <-deadline:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *Engine) longestLinger() time.Duration {
	return time.Duration(e.linger.Load())
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
