package engine

import (
	"fmt"
	"testing"
	"time"
)

// turning is a wheel with the deadlines of that many connections, spread evenly
// over one command's five minutes.
func turning(conns int) (*wheel, []*conn) {
	w, all := new(wheel), make([]*conn, conns)
	for i := range all {
		all[i] = new(conn)
		w.set(all[i], time.Duration(i+1)*5*time.Minute/time.Duration(conns))
	}
	return w, all
}

// BenchmarkWheelSet moves a deadline: later, as every command does, or sooner.
func BenchmarkWheelSet(b *testing.B) {
	for _, to := range []string{"later", "sooner"} {
		b.Run("to="+to, func(b *testing.B) {
			w, all := turning(10_000)
			deadline, step := time.Hour, time.Duration(1)
			if to == "sooner" {
				step = -step
			}
			for _, c := range all {
				w.remove(c)
				w.set(c, deadline)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				deadline += step
				w.set(all[i%len(all)], deadline)
			}
		})
	}
}

// BenchmarkWheelAdvance is one tick, in which those of the connections that are
// due get a new deadline, as if each had just sent a command.
func BenchmarkWheelAdvance(b *testing.B) {
	for _, conns := range []int{0, 1000, 100_000} {
		b.Run(fmt.Sprintf("conns=%d", conns), func(b *testing.B) {
			w, _ := turning(conns)
			var now time.Duration
			again := func(c *conn) { w.set(c, now+5*time.Minute) }
			b.ReportAllocs()
			for b.Loop() {
				now += tick
				w.advance(now, again)
			}
		})
	}
}
