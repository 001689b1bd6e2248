package engine

import (
	"net"

	"golang.org/x/sys/unix"
)

// unacknowledged is what of our output the peer has not taken yet; 0 where that is not
// known.
func unacknowledged(tc *net.TCPConn) int64 {
	raw, err := tc.SyscallConn()
	if err != nil {
		return 0
	}
	var n int
	_ = raw.Control(func(fd uintptr) { n, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_NWRITE) })
	return int64(n)
}
