package load

import (
	"math/rand/v2"
	"sync"
	"time"
)

const (
	quietest  = 5 * time.Second // before and after a flood, at most
	stormStep = 5 * time.Millisecond
)

// storm is mode Storm. What the flood takes is the run's own latency.
func (r *run) storm() {
	sessions := r.connectMany(r.o.Sessions)
	stop := r.start()
	quiet := min(r.o.Duration, quietest)
	r.rec.enter("before")
	done := make(chan struct{})
	var talkers sync.WaitGroup
	for _, s := range sessions {
		talkers.Go(func() { r.ping(s, done) })
	}
	r.sleep(quiet)
	r.rec.enter("during")
	r.until = time.Now().Add(r.o.Duration)
	each(r.o.Connections, func(int) { r.upgrading() })
	r.rec.enter("after")
	r.sleep(quiet)
	r.rec.leave()
	close(done)
	talkers.Wait()
	stop()
	each(len(sessions), func(i int) { sessions[i].end() })
}

// ping measures an established session until done, and one after it if that fails.
// Its commands are due whatever the server does: those that a stall holds up are
// sent behind it one after the other, and their latency counts from when they were due.
func (r *run) ping(s *session, done <-chan struct{}) {
	noop := r.o.Target.protocol.noop
	for due := time.Now(); r.ctx.Err() == nil; due = due.Add(stormStep + rand.N(stormStep)) {
		if d := time.Until(due); d > 0 {
			r.sleep(d)
			due = time.Now() // that a timer is late is not the server's doing, and sleepUntil takes a thread each
		}
		select {
		case <-done:
			return
		default:
		}
		err := s.connect()
		if err == nil {
			err = s.do(func(c *conn) error { return c.do(noop) })
		}
		took := time.Since(due)
		r.rec.phaseAt(due).record(took, err)
		r.failed(took, err)
	}
}
