//go:build !linux

package engine

// Without MSG_MORE the last words and the FIN are two segments.
const sendMore = 0
