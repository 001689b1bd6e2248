package engine

import (
	"context"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// Stress begins above the first shares and ends below the second ones, when that
// has held for a while: a server that is nearly full has its connections for those
// who use them.
const (
	stressConnections, calmConnections = 0.80, 0.70 // of MaxConnections
	stressQueue, calmQueue             = 0.50, 0.25 // of Handshakes.Queue
	calmFor                            = 3 * time.Second
)

// stress is what the ticker knows of it; its goroutine's alone.
type stress struct {
	since time.Time // it began
	calm  time.Time // the shares were last above calm
}

// tick looks at how full the engine is.
func (s *stress) tick(e *Engine, now time.Time) {
	open, most := e.door.fill()
	limits, queued := e.slots.Limits(), e.slots.Stats().Queued
	connections, queue := share(open, most), share(queued, limits.Queue)
	switch on := e.stressed.Load(); {
	case !on && (connections > stressConnections || queue > stressQueue):
		*s = stress{now, now}
		e.stressed.Store(true)
		e.stresses.Add(1)
		e.log.Warn("stress begins, deadlines are shortened", "connections", open, "max_connections", most,
			"handshakes_queued", queued, "queue", limits.Queue)
		for _, lp := range *e.loops.Load() {
			_ = lp.el.Execute(context.Background(), haste{lp})
		}
	case on && (connections > calmConnections || queue > calmQueue):
		s.calm = now
	case on && now.Sub(s.calm) >= calmFor:
		e.stressed.Store(false)
		e.log.Warn("stress is over, deadlines are as configured", "lasted", now.Sub(s.since).Round(time.Millisecond).String(),
			"connections", open, "max_connections", most, "handshakes_queued", queued)
	}
}

func share(n, most int) float64 { return float64(n) / float64(max(1, most)) }

// haste runs on a loop when stress begins: who has been waited for already is not
// waited for longer than who comes now.
type haste struct{ lp *loop }

func (h haste) Run(context.Context) error {
	h.lp.timers.each(func(c *conn) {
		if c.relay == nil && c.heldBy() == onLoop {
			h.lp.act(c, (*conn).hasten)
		}
	})
	return nil
}

func (c *conn) hasten() gnet.Action {
	if due := c.link.lp.now + c.lst.Limits.Stress; due < c.timer.deadline {
		c.setDeadline(due)
	}
	return gnet.None
}

// patience is d, or what is left of it under stress.
func (l *listener) patience(d time.Duration) time.Duration {
	if l.eng.stressed.Load() {
		return min(d, l.Limits.Stress)
	}
	return d
}
