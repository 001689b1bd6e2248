package tlsbridge

import (
	"bytes"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// stream is one direction of a wire: an unbounded queue of bytes.
type stream struct {
	mu       sync.Mutex
	cond     sync.Cond
	b        bytes.Buffer
	closed   bool
	deadline time.Time
	timer    *time.Timer
	onWrite  func() // stands for the event that an event loop gets
	log      []byte // all that was written, when keep is set
	keep     bool
}

func newStream() *stream {
	s := &stream{}
	s.cond.L = &s.mu
	return s
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return 0, io.ErrClosedPipe
	}
	s.b.Write(p)
	if s.keep {
		s.log = append(s.log, p...)
	}
	event := s.onWrite
	s.cond.Broadcast()
	s.mu.Unlock()
	if event != nil {
		event()
	}
	return len(p), nil
}

func (s *stream) read(p []byte, wait bool) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case wait && !s.deadline.IsZero() && time.Until(s.deadline) <= 0:
			return 0, os.ErrDeadlineExceeded
		case s.b.Len() > 0:
			return s.b.Read(p)
		case s.closed:
			return 0, io.EOF
		case !wait:
			return 0, ErrWouldBlock
		}
		s.cond.Wait()
	}
}

func (s *stream) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Len() == 0
}

func (s *stream) close() {
	s.mu.Lock()
	s.closed = true
	event := s.onWrite
	s.cond.Broadcast()
	s.mu.Unlock()
	if event != nil {
		event()
	}
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), s.cond.Broadcast)
	}
	s.cond.Broadcast()
}

// written returns a copy of all that was written so far. Needs keep.
func (s *stream) written() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.log)
}

// wireEnd is one end of an in-memory connection: a blocking net.Conn whose
// writes never wait, and so also a Link for a lent Conn.
type wireEnd struct{ rx, tx *stream }

func newWire() (client, server *wireEnd) {
	up, down := newStream(), newStream()
	return &wireEnd{rx: down, tx: up}, &wireEnd{rx: up, tx: down}
}

func (e *wireEnd) Read(p []byte) (int, error)  { return e.rx.read(p, true) }
func (e *wireEnd) Write(p []byte) (int, error) { return e.tx.write(p) }
func (e *wireEnd) Close() error {
	e.tx.close()
	e.rx.close()
	return nil
}
func (e *wireEnd) SetReadDeadline(t time.Time) error { e.rx.setDeadline(t); return nil }
func (e *wireEnd) SetWriteDeadline(time.Time) error  { return nil }
func (e *wireEnd) SetDeadline(t time.Time) error     { return e.SetReadDeadline(t) }
func (e *wireEnd) LocalAddr() net.Addr               { return noAddr{} }
func (e *wireEnd) RemoteAddr() net.Addr              { return noAddr{} }

// loopLink is the same end as an event loop sees it. max, when set, bounds each read.
type loopLink struct {
	end *wireEnd
	max func() int
}

func (l *loopLink) Read(p []byte) (int, error) {
	if l.max != nil {
		p = p[:min(len(p), l.max())]
	}
	return l.end.rx.read(p, false)
}

func (l *loopLink) Write(p []byte) (int, error) { return l.end.tx.write(p) }
