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
func (r *run) ping(s *session, done <-chan struct{}) {
	noop := r.o.Target.protocol.noop
	for {
		select {
		case <-done:
			return
		default:
		}
		if err := s.connect(); err != nil {
			r.failed(err)
		} else {
			phase, began := r.rec.phase.Load(), time.Now()
			err := s.do(func(c *conn) error { return c.do(noop) })
			phase.record(time.Since(began), err)
			r.failed(err)
		}
		r.sleep(stormStep + rand.N(stormStep))
		if r.ctx.Err() != nil {
			return
		}
	}
}
