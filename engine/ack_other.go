//go:build !linux

package engine

import "net"

// acknowledge is for Linux.
func acknowledge(*net.TCPConn) {}
