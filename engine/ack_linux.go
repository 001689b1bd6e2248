package engine

import (
	"net"

	"golang.org/x/sys/unix"
)

// acknowledge has the kernel acknowledge at once what has come, and not in 40 ms:
// what a client sends next may wait for that (RFC 896).
func acknowledge(tc *net.TCPConn) {
	raw, err := tc.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1) })
}
