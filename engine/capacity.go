package engine

import (
	"fmt"
	"math"
	"net/netip"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"starttlsd/tlsbridge"
)

// connMemory is what one connection under TLS is reckoned to take, with room for
// handshakes and bodies.
const connMemory = 64 << 10

// descriptorLimit is the process's, at most a number that no process reaches.
func descriptorLimit() int {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil || lim.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(lim.Cur)
}

// descriptorStock is what connections and the files of their sessions may take:
// the limit less what the process itself needs, for loops, listeners, and
// connections that change hands or are being turned away, and less reserve. each is
// as in AutoMaxConnections.
func descriptorStock(listeners, loops, reserve, each int) int {
	return max(2, descriptorLimit()-16-reserve-2*loops-each*swapping-refusing-2*acceptorsPerListener*listeners)
}

// AutoMaxConnections is the number of connections that descriptors and memory
// allow, and the reckoning in words. A twentieth of the descriptors is left to
// the files of sessions, at least 16; more of them leave less to new connections.
// loops and reserve are as in Config; each is what a connection takes, 2 where
// there are backends.
func AutoMaxConnections(listeners, loops, reserve, each int) (int, string) {
	setDefault(&loops, defaultLoops())
	limit := descriptorLimit()
	files := max(1, (descriptorStock(listeners, loops, reserve, each)-max(16, limit/20))/each)
	memory := math.MaxInt
	if m := min(debug.SetMemoryLimit(-1), physicalMemory()); m < math.MaxInt64 {
		memory = max(1, int(m/connMemory))
	}
	if files <= memory {
		return files, fmt.Sprintf("the limit of %d descriptors, at %d each", limit, each)
	}
	return memory, fmt.Sprintf("memory, at %d KiB each", connMemory>>10)
}

// descriptorsEach is what a connection takes.
func descriptorsEach(backends bool) int {
	if backends {
		return 2 // its own, and its backend's
	}
	return 1
}

// Admit changes the limits of all listeners together, for connections to come.
// backends tells whether connections may take a descriptor for one.
func (e *Engine) Admit(a Admission, backends bool) {
	a.setDefaults()
	each := descriptorsEach(backends)
	most, why := AutoMaxConnections(max(len(e.cfg.Listeners), len(e.Served())), e.cfg.Loops, e.cfg.Reserve, each)
	switch n := &a.MaxConnections; {
	case *n == 0:
		*n = most
		e.log.Info("max_connections is automatic", "value", most, "by", why)
	case *n > most:
		e.log.Warn("max_connections is more than the process can hold, and is lowered", "configured", *n, "value", most, "by", why)
		*n = most
	default:
		why = "configured"
	}
	e.door.set(a)
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	e.max, e.whyMax = a.MaxConnections, why
}

// LimitHandshakes changes Config.Handshakes, but for Computing, for handshakes to come.
func (e *Engine) LimitHandshakes(o tlsbridge.SlotLimits) { e.slots.SetLimits(o) }

func (e *Engine) maxConnections() (int, string) {
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	return e.max, e.whyMax
}

// enter admits a connection of client, or says why not. One that entered leaves once.
func (l *listener) enter(client netip.Prefix) (Reason, bool) {
	e := l.eng
	if reason, ok := l.door.enter(client); !ok {
		return reason, false
	}
	if l.door != e.door { // it is counted there as nobody's
		if reason, ok := e.door.enter(netip.Prefix{}); !ok {
			l.door.leave(client)
			return reason, false
		}
	}
	if !e.files.TryAcquire(1) {
		l.leaveDoors(client)
		return ReasonMaxConnections, false
	}
	e.admitted.Add(1)
	l.stats.open.Add(1)
	l.stats.layers[plain].Add(1)
	e.open.Add(1)
	return 0, true
}

// leave is for a connection that has entered, in the layer where it was last.
func (l *listener) leave(client netip.Prefix, was layer) {
	l.leaveDoors(client)
	l.eng.files.Release(1)
	l.stats.layers[was].Add(-1)
	l.stats.open.Add(-1)
	l.eng.open.Done()
}

func (l *listener) leaveDoors(client netip.Prefix) {
	l.door.leave(client)
	if l.door != l.eng.door {
		l.eng.door.leave(netip.Prefix{})
	}
}
