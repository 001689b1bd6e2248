package engine

import (
	"runtime/debug"
	"testing"
)

// percentNow reads GOGC without a lasting change.
func percentNow() int {
	percent := debug.SetGCPercent(100)
	debug.SetGCPercent(percent)
	return percent
}

func TestMemoryPolicyFollowsTheWaves(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	m := newMemoryPolicy(true)
	m.live = func() uint64 { return 1 << 20 }
	m.tick(busy-1, busy-1)
	if percent := percentNow(); percent != 100 {
		t.Errorf("GOGC %d after a few handshakes", percent)
	}
	m.tick(wave, wave)
	if percent := percentNow(); percent <= 100 {
		t.Errorf("GOGC %d in a wave of handshakes, with a small heap", percent)
	}
	// With a large heap the runtime's own percentage leaves room enough.
	m.live = func() uint64 { return 1 << 30 }
	m.tick(2*wave, 2*wave)
	if percent := percentNow(); percent != 100 {
		t.Errorf("GOGC %d with a large heap", percent)
	}
	// A trickle is no wave: the memory is given back all the same.
	connections := uint64(2 * wave)
	for range 3 * int(lapse/tick) {
		connections++
		m.tick(connections, 2*wave)
	}
	if percent := percentNow(); percent != 100 || m.freed == 0 {
		t.Errorf("GOGC %d after the wave, memory given back at %d arrivals", percent, m.freed)
	}
}

func TestMemoryPolicyLeavesTheUsersSettingsAlone(t *testing.T) {
	for _, name := range []string{"GOGC", "GOMEMLIMIT"} {
		t.Setenv("GOGC", "")
		t.Setenv("GOMEMLIMIT", "")
		t.Setenv(name, "off")
		if newMemoryPolicy(true).on {
			t.Errorf("%s is set, and overridden", name)
		}
	}
	if newMemoryPolicy(false).on {
		t.Error("on without being asked for")
	}
}
