package engine

import (
	"errors"
	"io"
	"net"
	"os"
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
	gc      gnet.Conn                  // nil unless on the loop and open: a closed gnet.Conn's descriptor may be another client's
	wire    *[]byte                    // the loop's buffer for output; nil when gc is
	tc      *net.TCPConn               // nil unless lent
	prefix  *bytebufferpool.ByteBuffer // read by gnet, not yet by us: comes before what gc and tc have
	taken   int                        // of prefix
	pending *bytebufferpool.ByteBuffer // what the socket has refused, in order
	err     error                      // the first write error; sticky
	in, out int64                      // bytes on the wire
}

// Read never waits on the loop and blocks while lent.
func (l *link) Read(p []byte) (n int, err error) {
	switch {
	case l.prefix != nil:
		n = copy(p, l.prefix.B[l.taken:])
		if l.taken += n; l.taken == len(l.prefix.B) {
			release(&l.prefix)
			l.taken = 0
		}
	case l.tc != nil:
		n, err = l.tc.Read(p)
	case l.gc != nil:
		if n, err = l.gc.Read(p); errors.Is(err, io.ErrShortBuffer) {
			err = tlsbridge.ErrWouldBlock
		}
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
	case l.err != nil:
	case l.tc != nil:
		n, l.err = l.tc.Write(p)
		l.out += int64(n)
	case l.wire != nil:
		*l.wire = append(*l.wire, p...)
		n = len(p)
	default:
		l.err = net.ErrClosed
	}
	return n, l.err
}

// push writes what was gathered, and copies to pending what the socket refuses.
// gnet's own buffer is not used, because it can neither tell when it has drained
// nor be taken along. A failure shows in err. On the loop.
func (l *link) push() {
	wire := *l.wire
	*l.wire = wire[:0]
	if len(wire) == 0 || l.err != nil {
		return
	}
	if l.pending == nil {
		var n int
		n, l.err = l.writeSome(wire)
		l.out += int64(n)
		wire = wire[n:]
	}
	if len(wire) == 0 || l.err != nil {
		return
	}
	if l.pending == nil {
		l.pending = codec.GetBuffer()
	}
	l.pending.B = append(l.pending.B, wire...)
}

// writeSome writes what the socket takes now.
func (l *link) writeSome(p []byte) (int, error) {
	for sent := 0; ; {
		n, err := unix.Write(l.gc.Fd(), p[sent:])
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

// blocked tells whether output waits for the socket.
func (l *link) blocked() bool { return l.pending != nil }

// buffered counts the bytes that have been read from the socket and not by us.
func (l *link) buffered() int {
	n := 0
	if l.prefix != nil {
		n = len(l.prefix.B) - l.taken
	}
	if l.gc != nil {
		n += l.gc.InboundBuffered()
	}
	return n
}

// leaveLoop lets go of gc, taking along what it has read.
func (l *link) leaveLoop() {
	if rest, _ := l.gc.Next(-1); len(rest) > 0 {
		if l.prefix == nil {
			l.prefix = codec.GetBuffer()
		}
		l.prefix.B = append(l.prefix.B, rest...)
	}
	l.gc, l.wire = nil, nil
}

// drain writes what is pending before anything else is written. Lent only.
func (l *link) drain(deadline time.Time) error {
	if l.pending == nil || l.err != nil {
		return l.err
	}
	_ = l.tc.SetWriteDeadline(deadline)
	n, err := l.tc.Write(l.pending.B)
	l.out += int64(n)
	l.err = err
	release(&l.pending)
	return err
}

// await blocks until Read has something to give, without a buffer to read into. Lent only.
func (l *link) await() error {
	if l.prefix != nil {
		return nil
	}
	raw, err := l.tc.SyscallConn()
	if err != nil {
		return err
	}
	var peek error // takes the socket's error off it: a read behind it would see EOF
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, peek = unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return peek != unix.EAGAIN
	})
	if err == nil && peek != nil && peek != unix.EINTR {
		err = os.NewSyscallError("recvfrom", peek)
	}
	return err
}

// SetReadDeadline and SetWriteDeadline serve tls.Conn while lent; on the loop
// there is nothing that could wait.
func (l *link) SetReadDeadline(t time.Time) error {
	if l.tc != nil {
		return l.tc.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline: see SetReadDeadline.
func (l *link) SetWriteDeadline(t time.Time) error {
	if l.tc != nil {
		return l.tc.SetWriteDeadline(t)
	}
	return nil
}

// free returns the buffers at the end of the connection.
func (l *link) free() {
	release(&l.prefix)
	release(&l.pending)
}

// release gives a pooled buffer back, if there is one.
func release(b **bytebufferpool.ByteBuffer) {
	if *b != nil {
		codec.PutZeroed(*b)
		*b = nil
	}
}
