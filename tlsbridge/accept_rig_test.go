package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// readAhead is a Waiter over a net.Conn: Await reads, at most that many bytes, and
// Read has what it got.
type readAhead struct {
	net.Conn
	most   int
	ahead  []byte
	err    error // of the last read
	awaits int

	interrupts atomic.Int64
	returned   atomic.Bool // Accept has: it must not interrupt any more
}

func (l *readAhead) Read(p []byte) (int, error) {
	if len(l.ahead) == 0 && l.err == nil {
		return 0, ErrWouldBlock
	}
	n := copy(p, l.ahead)
	if l.ahead = l.ahead[n:]; n > 0 {
		return n, nil
	}
	return 0, l.err
}

func (l *readAhead) Await() error {
	l.awaits++
	if len(l.ahead) > 0 || l.err != nil {
		return nil
	}
	b := make([]byte, l.most)
	n, err := l.Conn.Read(b)
	l.ahead = b[:n]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = l.SetReadDeadline(time.Time{})
	} else {
		l.err = err
	}
	return nil
}

func (l *readAhead) Interrupt() {
	if l.returned.Load() {
		panic("interrupted after Accept has returned")
	}
	l.interrupts.Add(1)
	_ = l.SetReadDeadline(time.Now().Add(-time.Second))
}

// blocking is the same stream afterwards, as one that blocks.
type blocking struct{ *readAhead }

func (l blocking) Read(p []byte) (int, error) {
	if len(l.ahead) > 0 {
		return l.readAhead.Read(p)
	}
	return l.Conn.Read(p)
}

// acceptance is an Accept that runs, with its peer's end.
type acceptance struct {
	t      testing.TB
	peer   net.Conn
	waiter *readAhead
	slots  *Slots
	over   chan struct{}
	conn   *Conn
	err    error
}

// startAccept starts Accept on a new wire, or on a new TCP connection.
func startAccept(t testing.TB, tcp bool, cfg *tls.Config, slots *Slots, o Options) *acceptance {
	t.Helper()
	return startReading(t, tcp, 64<<10, cfg, slots, o)
}

// startReading is startAccept with that many bytes at most a read.
func startReading(t testing.TB, tcp bool, most int, cfg *tls.Config, slots *Slots, o Options) *acceptance {
	t.Helper()
	var peer, end net.Conn
	if peer, end = newWire(); tcp {
		peer, end = loopback(t)
	}
	a := &acceptance{t: t, peer: peer, waiter: &readAhead{Conn: end, most: most}, slots: slots, over: make(chan struct{})}
	if o.OnPanic == nil {
		o.OnPanic = unexpectedPanic
	}
	if o.Permit == nil {
		var err error
		if o.Permit, err = slots.Reserve(noClient); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(a.over)
		a.conn, a.err = Accept(a.waiter, cfg, o)
		a.waiter.returned.Store(true)
	}()
	t.Cleanup(func() { peer.Close(); end.Close(); <-a.over })
	return a
}

func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// serves waits for the Conn and has it echo over a link that blocks, until the end.
func (a *acceptance) serves() *Conn {
	a.t.Helper()
	<-a.over
	if a.err != nil {
		a.t.Fatal(a.err)
	}
	a.conn.SetLink(blocking{a.waiter})
	go func() { _, _ = io.Copy(struct{ io.Writer }{a.conn}, struct{ io.Reader }{a.conn}) }()
	return a.conn
}

// fails waits for the error and expects that nothing is left.
func (a *acceptance) fails(reason Reason) *HandshakeError {
	a.t.Helper()
	<-a.over
	he, ok := a.err.(*HandshakeError)
	if !ok || he.Reason != reason || a.conn != nil {
		a.t.Fatalf("ended with %v, %v, want %v", a.conn, a.err, reason)
	}
	return he
}

func (a *acceptance) counts(want SlotCounts) {
	a.t.Helper()
	if got := a.slots.Stats().SlotCounts; got != want {
		a.t.Errorf("slots %+v, want %+v", got, want)
	}
}
