package engine

import (
	"math"
	"testing"
	"time"
)

// More bytes never leave a body less time, however many there are.
func TestABodyHasTheTimeThatItsBytesMayTake(t *testing.T) {
	const began = time.Hour
	for _, rate := range []int{1, 500, 1 << 30} {
		limits := Limits{BodyRate: rate}
		last := limits.slowest(began, 0)
		if last != began+bodyGrace {
			t.Errorf("at %d bytes/s, without a byte: %v", rate, last)
		}
		for _, got := range []int64{1, 500, 1 << 20, 1 << 31, 9_223_372_036, 9_223_372_037, 18_446_744_074, 1 << 43, 1 << 53, math.MaxInt64} {
			due := limits.slowest(began, got)
			exact := began + bodyGrace + time.Duration(got/int64(rate))*time.Second
			switch {
			case due < last:
				t.Errorf("at %d bytes/s, %d bytes have to be there at %v, fewer at %v", rate, got, due, last)
			case got/int64(rate) <= math.MaxInt32 && due != exact:
				t.Errorf("at %d bytes/s, %d bytes have to be there at %v, want %v", rate, got, due, exact)
			}
			last = due
		}
	}
}
