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
	var n uint32
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetUint32(int(fd), unix.SIOCOUTQ) })
	return int64(n)
}
