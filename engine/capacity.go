package engine

import (
	"fmt"
	"math"
	"runtime/debug"

	"golang.org/x/sys/unix"
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
// connections that change hands or are being turned away.
func descriptorStock(listeners, loops, each int) int {
	return max(2, descriptorLimit()-16-2*loops-each*swapping-refusing-2*acceptorsPerListener*listeners)
}

// AutoMaxConnections is the number of connections that descriptors and memory
// allow, and the reckoning in words. A twentieth of the descriptors is left to
// the files of sessions, at least 16; more of them leave less to new connections.
// loops is as in Config; each is what a connection takes, 2 where there are backends.
func AutoMaxConnections(listeners, loops, each int) (int, string) {
	setDefault(&loops, defaultLoops())
	limit := descriptorLimit()
	files := max(1, (descriptorStock(listeners, loops, each)-max(16, limit/20))/each)
	memory := math.MaxInt
	if m := min(debug.SetMemoryLimit(-1), physicalMemory()); m < math.MaxInt64 {
		memory = max(1, int(m/connMemory))
	}
	if files <= memory {
		return files, fmt.Sprintf("the limit of %d descriptors, at %d each", limit, each)
	}
	return memory, fmt.Sprintf("memory, at %d KiB each", connMemory>>10)
}
