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

// AutoMaxConnections is the number of connections that descriptors and memory
// allow, and the reckoning in words. Descriptors: the process's limit less a
// reserve for listeners, connections on their way to a loop, and files.
func AutoMaxConnections(listeners int) (int, string) {
	files := math.MaxInt
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < math.MaxInt32 {
		n := int(lim.Cur)
		files = max(1, n-n/20-48-2*acceptorsPerListener*listeners)
	}
	memory := math.MaxInt
	if m := min(debug.SetMemoryLimit(-1), physicalMemory()); m < math.MaxInt64 {
		memory = max(1, int(m/connMemory))
	}
	if files <= memory {
		return files, fmt.Sprintf("%d, by the limit of %d descriptors", files, lim.Cur)
	}
	return memory, fmt.Sprintf("%d, by memory at %d KiB each", memory, connMemory>>10)
}
