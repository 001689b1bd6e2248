package tlsbridge

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// loop drives one Conn as an event loop does: a single goroutine that reads
// until it would block whenever there is an event, and echoes what it reads.
type loop struct {
	conn   *Conn
	end    *wireEnd
	slots  *Slots
	events chan struct{}
	tasks  chan func()
	ended  chan struct{}
	serve  func(c *Conn, p []byte) error
	err    error // what Read ended with; valid after ended
	wakes  atomic.Int64
}

type loopOption func(*loop, *loopLink, *Options)

// oneByte makes the link give one byte a read.
func oneByte(_ *loop, l *loopLink, _ *Options) { l.max = func() int { return 1 } }

// withSlots takes the permit from s.
func withSlots(t testing.TB, s *Slots) loopOption {
	return func(l *loop, _ *loopLink, o *Options) {
		var err error
		if o.Permit, err = s.Reserve(noClient); err != nil {
			t.Error(err)
		}
		l.slots = s
	}
}

// startLoop starts a server on one end of a new wire and returns the other. At
// the end of the test the server is gone and every permit is back.
func startLoop(t testing.TB, cfg *tls.Config, options ...loopOption) (*loop, *wireEnd) {
	client, server := newWire()
	l := &loop{
		end: server, slots: NewSlots(SlotLimits{}),
		events: make(chan struct{}, 1), tasks: make(chan func()), ended: make(chan struct{}),
		serve: func(c *Conn, p []byte) error { _, err := c.Write(p); return err },
	}
	link := &loopLink{end: server}
	o := Options{OnPanic: func(v any, stack []byte) { unexpectedPanic(v, stack) }}
	o.Wake = func() { l.wakes.Add(1); l.event() }
	for _, option := range options {
		option(l, link, &o)
	}
	if o.Permit == nil {
		withSlots(t, l.slots)(l, link, &o)
	}
	server.rx.onWrite = l.event
	l.conn = Server(link, cfg, o)
	go l.run()
	t.Cleanup(func() {
		client.Close()
		<-l.ended
		l.conn.Abort(net.ErrClosed)
	})
	return l, client
}

func (l *loop) event() {
	select {
	case l.events <- struct{}{}:
	default: // one is pending, and it reads everything
	}
}

func (l *loop) run() {
	defer close(l.ended)
	defer l.end.Close()
	buf := make([]byte, 1<<10)
	for {
		for {
			n, err := l.conn.Read(buf)
			if n > 0 && err == nil {
				err = l.serve(l.conn, buf[:n])
			}
			if err == ErrWouldBlock {
				break
			}
			if err != nil {
				l.err = err
				_ = l.conn.CloseNotify() // the link may be gone
				return
			}
		}
		select {
		case <-l.events:
		case f := <-l.tasks:
			f()
		}
	}
}

// do runs f on the loop and waits for it.
func (l *loop) do(f func()) {
	done := make(chan struct{})
	select {
	case l.tasks <- func() { f(); close(done) }:
		<-done
	case <-l.ended:
		f()
	}
}

// wait returns what Read ended with.
func (l *loop) wait() error {
	<-l.ended
	return l.err
}

// echo sends message over c and expects it back.
func echo(t testing.TB, c io.ReadWriter, message string) {
	t.Helper()
	if _, err := io.WriteString(c, message); err != nil {
		t.Fatal("write:", err)
	}
	expect(t, c, message)
}

func expect(t testing.TB, c io.Reader, message string) {
	t.Helper()
	got := make([]byte, len(message))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != message {
		t.Fatalf("read %.80q, %v; want %.80q", got, err, message)
	}
}

func clientConfig(version uint16) *tls.Config {
	cfg := tlstest.ClientConfig()
	cfg.MinVersion, cfg.MaxVersion = version, version
	return cfg
}

// bothVersions runs f for TLS 1.2 and TLS 1.3.
func bothVersions(t *testing.T, f func(t *testing.T, version uint16)) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) { f(t, version) })
	}
}
