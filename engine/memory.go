package engine

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// garbage is what may gather between two garbage collections, in bytes, while
	// there are handshakes and the live heap is smaller: with GOGC's 100 % of a
	// small heap, a collection is due every 60 of them. More makes them cheaper
	// still, but leaves live objects scattered: 64 MiB made idle connections 10 to
	// 40 % larger.
	garbage = 16 << 20
	// garbageShare keeps it to a part of the memory that there is.
	garbageShare = 16

	wave  = 512             // connections and handshakes that leave garbage worth a collection
	busy  = 64              // of them within a period: no time to collect
	lapse = 5 * time.Second // that period

	respite = 30 * time.Second // between two collections of ours
)

// memoryPolicy is what the engine does for Config.TuneMemory, unless GOGC or
// GOMEMLIMIT are set. While handshakes come in numbers it lets garbage gather.
// When a wave of arrivals is over it collects once and gives the memory back to
// the system, where an idle process would keep it: some 5 KB a handshake.
type memoryPolicy struct {
	on      bool
	allowed uint64        // bytes of garbage
	percent int           // as set last
	live    func() uint64 // bytes that the last collection has found in use
	ticks   int
	began   uint64 // handshakes when it last saw many
	begin   uint64 // arrivals when the period began
	freed   uint64 // arrivals when memory was given back last
	rest    int    // ticks until it may be given back again
}

func newMemoryPolicy(on bool) *memoryPolicy {
	return &memoryPolicy{
		on:      on && os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "",
		allowed: min(garbage, uint64(physicalMemory()/garbageShare)),
		percent: 100,
		live:    liveHeap,
	}
}

// tick is told at every tick how many connections were admitted, and how many
// handshakes there have been.
func (m *memoryPolicy) tick(connections, handshakes uint64) {
	if !m.on {
		return
	}
	m.rest--
	m.ticks++
	switch {
	case handshakes-m.began >= busy:
		m.began = handshakes
		m.tune()
	case m.percent > 100 && m.ticks%int(time.Second/tick) == 0:
		m.tune() // the heap may have grown by other things
	}
	arrivals := connections + handshakes
	if arrivals-m.begin >= busy {
		m.ticks, m.begin = 0, arrivals
	}
	if m.ticks < int(lapse/tick) {
		return
	}
	m.ticks, m.begin = 0, arrivals
	if m.percent > 100 {
		m.set(100)
	}
	if arrivals-m.freed >= wave && m.rest <= 0 {
		m.freed, m.rest = arrivals, int(respite/tick)
		go debug.FreeOSMemory() // deadlines do not wait for it
	}
}

// tune sets the garbage collector's percentage to what makes the allowed garbage
// of the live heap, but not for small changes: setting it stops the world.
func (m *memoryPolicy) tune() {
	live := max(m.live(), 4<<20) // the runtime's least heap
	percent := max(100, int(100*m.allowed/live))
	if percent*4 > m.percent*5 || percent*5 < m.percent*4 {
		m.set(percent)
	}
}

func (m *memoryPolicy) set(percent int) {
	m.percent = percent
	debug.SetGCPercent(percent)
}

func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
