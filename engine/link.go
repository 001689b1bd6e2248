package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/valyala/bytebufferpool"
	"golang.org/x/sys/unix"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// link is a connection's transport: a gnet.Conn on the loop, a blocking
// *net.TCPConn while lent. It is the tlsbridge.Link of the connection's TLS.
// Only the connection's holder touches it.
type link struct {
	lp      *loop     // where the connection was first; it is always given back there
	gc      gnet.Conn // nil unless on the loop and open: a closed gnet.Conn's descriptor may be another client's
	off     *detour   // nil while all is well on the loop
	in, out int64     // bytes on the wire
}

// detour is what only a connection has that is lent, on its way, or failing.
type detour struct {
	tc      *net.TCPConn               // nil unless lent
	fd      int                        // between leave and adopt: the descriptor taken from gnet; ours to close
	ahead   *[]byte                    // of bodyBuffers or dataBuffers; nil when unread is empty
	much    bool                       // of dataBuffers
	unread  []byte                     // read from tc, not yet by us: comes before everything else
	prefix  *bytebufferpool.ByteBuffer // read by gnet, not yet by us: comes before what gc and tc have
	taken   int                        // of prefix
	pending *bytebufferpool.ByteBuffer // what the socket has refused, in order
	err     error                      // the first write error; sticky
	writing sync.Mutex                 // while a pair is lent, two goroutines write: see put
	steady  bool                       // a write may last while the peer takes something: see putSteadily
	stall   atomic.Int64               // while a pair is lent: the time.Duration that a write may take
}

// detour returns l.off, which it makes if need be.
func (l *link) detour() *detour {
	if l.off == nil {
		l.off = new(detour)
	}
	return l.off
}

// back ends the detour of a connection that has returned to its loop, unless
// something of it is left.
func (l *link) back() {
	if off := l.off; off != nil && off.tc == nil && off.fd == 0 && off.ahead == nil && off.prefix == nil && off.pending == nil && off.err == nil {
		l.off = nil
	}
}

// failure is the first write error.
func (l *link) failure() error {
	if l.off == nil {
		return nil
	}
	return l.off.err
}

func (l *link) fail(err error) {
	if err != nil && l.failure() == nil {
		l.detour().err = err
	}
}

// blocked tells whether output waits for the socket.
func (l *link) blocked() bool { return l.off != nil && l.off.pending != nil }

func (l *link) tc() *net.TCPConn {
	if l.off == nil {
		return nil
	}
	return l.off.tc
}

// Read never waits on the loop and blocks while lent.
func (l *link) Read(p []byte) (n int, err error) {
	switch off := l.off; {
	case off != nil && off.ahead != nil:
		n = copy(p, off.unread)
		if off.unread = off.unread[n:]; len(off.unread) == 0 {
			off.freeAhead()
			l.back()
		}
	case off != nil && off.prefix != nil:
		n = copy(p, off.prefix.B[off.taken:])
		if off.taken += n; off.taken == len(off.prefix.B) {
			release(&off.prefix)
			off.taken = 0
			l.back()
		}
	case l.gc != nil:
		if n, err = l.gc.Read(p); errors.Is(err, io.ErrShortBuffer) {
			err = tlsbridge.ErrWouldBlock
		}
	case off != nil && off.tc != nil:
		n, err = off.tc.Read(p)
	default:
		err = io.EOF // the connection is gone
	}
	l.in += int64(n)
	return n, err
}

// Write takes all of p or fails for good. On the loop it only gathers: push
// writes once for all that an event has produced.
func (l *link) Write(p []byte) (n int, err error) {
	switch {
	case l.tc() != nil:
		return l.put(p)
	case l.failure() != nil:
		return 0, l.failure()
	case l.gc != nil:
		l.lp.wire = append(l.lp.wire, p...)
		return len(p), nil
	default:
		l.fail(net.ErrClosed)
		return 0, net.ErrClosed
	}
}

// put writes p, blocking, and before it what is pending: whoever is the first to
// write does so. That may be the goroutine that reads, because TLS answers a
// KeyUpdate (RFC 8446 §4.6.3). Lent only.
func (l *link) put(p []byte) (n int, err error) {
	off := l.off
	off.writing.Lock()
	defer off.writing.Unlock()
	if off.err == nil && off.pending != nil {
		_, _ = l.putSome(off.pending.B)
		release(&off.pending)
	}
	if off.err != nil || len(p) == 0 {
		return 0, off.err
	}
	return l.putSome(p)
}

func (l *link) putSome(p []byte) (int, error) {
	e, off := l.lp.eng, l.off
	if off.steady {
		return l.putSteadily(p)
	}
	for stall := int64(0); stall != off.stall.Load(); { // which mayStall may just change
		stall = off.stall.Load()
		_ = off.tc.SetWriteDeadline(e.deadline(e.now() + time.Duration(stall)))
		if e.at() == ending {
			l.interrupt(true)
		}
	}
	n, err := off.tc.Write(p)
	l.out += int64(n)
	l.fail(err)
	return n, err
}

// mayStall bounds each write, also the one that is in progress. Lent only.
func (l *link) mayStall(d time.Duration) {
	l.off.stall.Store(int64(d))
	_ = l.off.tc.SetWriteDeadline(l.lp.eng.deadline(l.lp.eng.now() + d))
}

// push writes what was gathered, and copies to pending what the socket refuses.
// gnet's own buffer is not used, because it can neither tell when it has drained
// nor be taken along. more tells that a FIN follows at once, for it to share the
// last segment. A failure shows in failure. On the loop.
func (l *link) push(more bool) {
	wire := l.lp.wire
	l.lp.wire = wire[:0]
	if len(wire) == 0 || l.failure() != nil {
		return
	}
	if !l.blocked() {
		n, err := l.writeSome(wire, more)
		l.out += int64(n)
		l.fail(err)
		wire = wire[n:]
	}
	if len(wire) == 0 || l.failure() != nil {
		return
	}
	off := l.detour()
	if off.pending == nil {
		off.pending = codec.GetBuffer()
	}
	off.pending.B = append(off.pending.B, wire...)
}

// writeSome writes what the socket takes now.
func (l *link) writeSome(p []byte, more bool) (sent int, err error) {
	for {
		var n int
		if more && sendMore != 0 {
			n, err = unix.SendmsgN(l.gc.Fd(), p[sent:], nil, nil, sendMore)
		} else {
			n, err = unix.Write(l.gc.Fd(), p[sent:])
		}
		if n > 0 {
			sent += n
		}
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN, err == nil && sent == len(p):
			return sent, nil
		case err != nil:
			return sent, err
		}
	}
}

// buffered counts the bytes that have been read from the socket and not by us.
func (l *link) buffered() int {
	n := 0
	if off := l.off; off != nil {
		n = len(off.unread)
		if off.prefix != nil {
			n += len(off.prefix.B) - off.taken
		}
	}
	if l.gc != nil {
		n += l.gc.InboundBuffered()
	}
	return n
}

// leaveLoop lets go of gc, taking along its socket and what it has read. Who
// calls it sees to it that gnet closes gc.
func (l *link) leaveLoop() error {
	// At least 3, so that 0 is none.
	fd, err := unix.FcntlInt(uintptr(l.gc.Fd()), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	off := l.detour()
	off.fd = fd
	if rest, _ := l.gc.Next(-1); len(rest) > 0 {
		if off.prefix == nil {
			off.prefix = codec.GetBuffer()
		}
		off.prefix.B = append(off.prefix.B, rest...)
	}
	l.gc = nil
	return nil
}

// hangUp closes the socket unless gnet has it.
func (l *link) hangUp() {
	switch off := l.off; {
	case off == nil:
	case off.tc != nil:
		_ = off.tc.Close()
		off.tc = nil
	case off.fd != 0:
		_ = unix.Close(off.fd)
		off.fd = 0
	}
}

// drain writes what is pending before anything else is written. Lent only.
func (l *link) drain(deadline time.Time) error {
	if !l.blocked() {
		return l.failure()
	}
	_ = l.off.tc.SetWriteDeadline(deadline)
	_, err := l.put(nil)
	return err
}

// await blocks until Read has something to give, and reads that ahead: a record
// of TLS would take a call for its header and one for its body. While it waits
// there is no buffer to read into. Lent only.
func (l *link) await() error {
	off := l.off
	if off.prefix != nil || off.ahead != nil {
		return nil
	}
	raw, err := off.tc.SyscallConn()
	if err != nil {
		return err
	}
	var failed error // an error is told once: a read behind it would see EOF
	err = raw.Read(func(fd uintptr) bool {
		buf := off.getAhead()
		var n int
		for failed = unix.EINTR; failed == unix.EINTR; {
			n, failed = unix.Read(int(fd), (*buf)[:min(len(*buf), dataSize)])
		}
		if n > 0 {
			off.ahead, off.unread = buf, (*buf)[:n]
			return true
		}
		off.putAhead(buf)
		return failed != unix.EAGAIN
	})
	if err == nil && failed != nil {
		err = os.NewSyscallError("read", failed)
	}
	return err
}

// rest blocks until the deadline of reading, or an interrupt: there is nothing more to
// be read. Lent only.
func (l *link) rest() error {
	raw, err := l.off.tc.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(uintptr) bool { return false })
}

func (d *detour) freeAhead() {
	if d.ahead != nil {
		d.putAhead(d.ahead)
		d.ahead, d.unread = nil, nil
	}
}

func (d *detour) getAhead() *[]byte {
	if d.much {
		return dataBuffers.Get().(*[]byte)
	}
	return getBody()
}

func (d *detour) putAhead(b *[]byte) {
	if d.much {
		dataBuffers.Put(b)
	} else {
		putBody(b)
	}
}

// SetReadDeadline and SetWriteDeadline serve tls.Conn while lent; on the loop
// there is nothing that could wait.
func (l *link) SetReadDeadline(t time.Time) error {
	if tc := l.tc(); tc != nil {
		return tc.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline: see SetReadDeadline.
func (l *link) SetWriteDeadline(t time.Time) error {
	if tc := l.tc(); tc != nil {
		return tc.SetWriteDeadline(t)
	}
	return nil
}

// free returns the buffers at the end of the connection.
func (l *link) free() {
	if l.off != nil {
		l.off.freeAhead()
		release(&l.off.prefix)
		release(&l.off.pending)
	}
}

// release gives a pooled buffer back, if there is one.
func release(b **bytebufferpool.ByteBuffer) {
	if *b != nil {
		codec.PutZeroed(*b)
		*b = nil
	}
}
