//go:build !linux && !darwin

package engine

import "net"

// unacknowledged is not known: what counts is what a write gets rid of.
func unacknowledged(*net.TCPConn) int64 { return 0 }
