package engine

import (
	"errors"
	"math"
	"os"
	"sync"
	"time"
)

// bodyGrace is how long a body may take before its average rate counts.
var bodyGrace = time.Minute // less in tests

// slowest is when a body that began then is overdue, got bytes of which have come.
func (l *Limits) slowest(began time.Duration, got int64) time.Duration {
	seconds := min(got/int64(l.BodyRate), math.MaxInt32) // 68 years: a time.Duration overflows at 292
	return began + bodyGrace + time.Duration(seconds)*time.Second
}

// bodyBuffers are what lent connections read into, and hold only while there is
// something to read.
var bodyBuffers = sync.Pool{New: func() any { b := make([]byte, readSize); return &b }}

func getBody() *[]byte { return bodyBuffers.Get().(*[]byte) }

// putBody gives a buffer back. It may have held credentials.
func putBody(b *[]byte) {
	clear(*b)
	bodyBuffers.Put(b)
}

// body reads a lent connection's input.
type body struct {
	c     *conn
	buf   *[]byte // nil while nothing is buffered: a stalled peer costs no buffer
	began time.Duration
	got   int
}

// more waits for input and returns rest, which it may move, with what has come
// behind it.
func (b *body) more(rest []byte) ([]byte, error) {
	c := b.c
	if len(rest) > readSize/2 {
		panic("engine: the session asks for more than a frame may hold")
	}
	if len(rest) == 0 {
		release(&c.in)
		b.free()
	}
	if err := b.setDeadline(); err != nil {
		return nil, err
	}
	if c.tls == nil || c.tls.Buffered() == 0 {
		if err := c.link.await(); err != nil {
			return nil, b.why(err)
		}
	}
	if b.buf == nil {
		b.buf = getBody()
	}
	buf := *b.buf
	n := copy(buf, rest)
	release(&c.in)
	m, err := c.read(buf[n:])
	b.got += m
	if m > 0 {
		err = nil // what ended the stream shows again
	}
	return buf[:n+m], b.why(err)
}

// moment is how long a connection stays lent for the command that may follow.
const moment = 20 * time.Millisecond

// errIdle: no command has followed; the connection belongs on its loop.
var errIdle = errors.New("nothing follows at once")

// soon waits a moment for the next command, so that a connection on which message
// follows message does not change hands twice for each. What is left of a command,
// and any failure, is for the loop to see.
func (b *body) soon(rest []byte) ([]byte, error) {
	c := b.c
	e := c.lst.eng
	if len(rest) > 0 {
		return rest, errIdle
	}
	release(&c.in)
	b.free()
	_ = c.link.off.tc.SetReadDeadline(e.deadline(e.now() + moment))
	if e.at() >= farewells {
		return nil, errIdle
	}
	if c.tls.Buffered() == 0 && c.link.await() != nil {
		return nil, errIdle
	}
	b.buf = getBody()
	n, _ := c.read(*b.buf)
	if n == 0 {
		return nil, errIdle
	}
	return (*b.buf)[:n], nil
}

// setDeadline gives the next read its time: the body may neither stall nor trickle.
func (b *body) setDeadline() error {
	c := b.c
	e, limits := c.lst.eng, &c.lst.Limits
	slowest := limits.slowest(b.began, int64(b.got))
	_ = c.link.off.tc.SetReadDeadline(e.deadline(min(e.now()+limits.BodyStall, slowest)))
	// Reading writes too, when the peer asks for a KeyUpdate (RFC 8446 §4.6.3).
	_ = c.link.off.tc.SetWriteDeadline(e.deadline(e.now() + limits.Command))
	// After the deadlines: whoever interrupts sets the stage first, then its deadline.
	if e.at() >= farewells {
		return errDraining
	}
	return nil
}

func (b *body) why(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) && b.c.lst.eng.at() >= farewells {
		return errDraining
	}
	return err
}

func (b *body) free() {
	if b.buf != nil {
		putBody(b.buf)
		b.buf = nil
	}
}
