package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// sleepFine sleeps in the kernel: Go's timers are late by up to a millisecond. A
// signal may end it early by a little.
func sleepFine(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}
