package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Every deadline fires once, at the first tick that is not before it, however
// often it was moved.
func TestWheelFiresEachDeadlineOnceAndOnTime(t *testing.T) {
	var w wheel
	r := rand.New(rand.NewPCG(1, 2))
	conns := make([]*conn, 3000)
	fired := map[*conn]time.Duration{}
	for i := range conns {
		conns[i] = new(conn)
		w.set(conns[i], time.Duration(r.IntN(300_000))*time.Millisecond)
	}
	removed := map[*conn]bool{}
	for now := time.Duration(0); now < 700*time.Second; now += time.Duration(1+r.IntN(400)) * time.Millisecond {
		for range 3 {
			c := conns[r.IntN(len(conns))]
			if _, done := fired[c]; done || removed[c] {
				continue
			}
			switch r.IntN(4) {
			case 0:
				w.remove(c)
				removed[c] = true
			default:
				w.set(c, now+time.Duration(r.IntN(120_000))*time.Millisecond)
			}
		}
		w.advance(now, func(c *conn) {
			if _, twice := fired[c]; twice || removed[c] {
				t.Fatal("fired twice, or after removal")
			}
			if late := now - c.timer.deadline; late < 0 || late > 400*time.Millisecond+2*tick {
				t.Fatalf("fired %v after its deadline", late)
			}
			fired[c] = now
		})
	}
	if len(fired)+len(removed) != len(conns) {
		t.Fatalf("%d fired and %d removed of %d", len(fired), len(removed), len(conns))
	}
	w.each(func(*conn) { t.Fatal("left in the wheel") })
}

func TestWheelCatchesUpAfterAPause(t *testing.T) {
	var w wheel
	n := 0
	for i := range 2 * wheelSlots {
		w.set(new(conn), time.Duration(i)*tick)
	}
	w.advance(time.Hour, func(*conn) { n++ })
	if n != 2*wheelSlots {
		t.Fatalf("%d of %d fired", n, 2*wheelSlots)
	}
}
