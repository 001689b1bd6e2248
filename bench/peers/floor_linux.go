package peers

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Floor is the CPU time that crypto/tls alone takes for the server's side of an
// upgrade, as the mean of n: no sockets, no loops, no SMTP.
//
// It is the CPU time of the one thread that the server's half is locked to, and
// counts from tls.Server to the close alert: reading the ClientHello, key
// exchange, signature, the Finished of both, the session ticket if the client
// takes one, one record read, one written. Not counted is the transport, where
// the thread waits for the client; the clock itself, which is read before and
// after, adds a few microseconds. The garbage collector's own threads do not
// count, what it has the thread do while it allocates does.
func Floor(n int, server, client *tls.Config) (perHandshake time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var w stopwatch
	for range n {
		ours, theirs := newLinks()
		ours.enter, ours.leave = w.stop, w.start
		ended := make(chan error, 1)
		go func() { ended <- dialFloor(theirs, client) }()
		w.start()
		err := serveFloor(ours, server)
		w.stop()
		if err := cmp.Or(err, <-ended); err != nil {
			return 0, err
		}
	}
	if w.err != nil {
		return 0, fmt.Errorf("the clock of a thread: %w", w.err)
	}
	return w.spent / time.Duration(n), nil
}

// stopwatch measures the CPU time of the thread that it is used on.
type stopwatch struct {
	since, spent time.Duration
	err          error
}

func (w *stopwatch) start() { w.since = w.now() }
func (w *stopwatch) stop()  { w.spent += w.now() - w.since }

func (w *stopwatch) now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		w.err = err
	}
	return time.Duration(t.Nano())
}
