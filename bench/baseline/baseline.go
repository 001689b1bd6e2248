// Package baseline serves a codec.Session the plain way in Go: a goroutine a
// connection, blocking reads and writes, tls.Server on STARTTLS. It is what the
// engine is measured against, and no server to put on the internet: it has no
// limits, no drain and no log. In front of an IMAP server it is a relay.
package baseline

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"starttlsd/codec"
)

// Server serves the connections of one listener.
type Server struct {
	TLS        *tls.Config
	Implicit   bool // TLS from the first byte
	NewSession func(*codec.Peer) codec.Session
	Backend    string        // HOST:PORT of an IMAP server in clear, instead of NewSession
	Timeout    time.Duration // of a read with the replies before it, or a handshake; 0: none

	accepted atomic.Uint64
	mu       sync.Mutex
	conns    map[net.Conn]struct{}
	served   sync.WaitGroup
}

// Serve accepts until ln is closed.
func (s *Server) Serve(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if busy(err) {
			time.Sleep(pause)
			continue
		}
		if err != nil {
			return err
		}
		s.track(nc)
		go func() {
			defer s.untrack(nc)
			if s.Backend != "" {
				s.relay(nc)
				return
			}
			s.serve(nc)
		}()
	}
}

const pause = 50 * time.Millisecond // before the next Accept

// busy reports whether another Accept may succeed.
func busy(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close closes all connections and waits for their goroutines. Close the listener first.
func (s *Server) Close() {
	s.mu.Lock()
	for nc := range s.conns {
		_ = nc.Close()
	}
	s.mu.Unlock()
	s.served.Wait()
}

func (s *Server) track(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = make(map[net.Conn]struct{})
	}
	s.conns[nc] = struct{}{}
	s.served.Add(1)
}

func (s *Server) untrack(nc net.Conn) {
	_ = nc.Close()
	s.mu.Lock()
	delete(s.conns, nc)
	s.mu.Unlock()
	s.served.Done()
}

const (
	bufferSize = 4096     // that of bufio, which such servers use
	maxBuffer  = 16 << 10 // what a session may leave unconsumed
)

// conn is one connection, and all that its goroutine has.
type conn struct {
	*Server
	nc      net.Conn // a *tls.Conn, once there is TLS
	session codec.Session
	buf     []byte
	data    []byte // of buf: read and not yet consumed
	out     []byte // not yet written
}

func (s *Server) serve(nc net.Conn) {
	addr := func(a net.Addr) *net.TCPAddr { return a.(*net.TCPAddr) }
	peer := codec.NewPeer(codec.ConnID(s.accepted.Add(1)), addr(nc.RemoteAddr()).AddrPort(), addr(nc.LocalAddr()).AddrPort())
	c := &conn{Server: s, nc: nc, buf: make([]byte, bufferSize), session: s.NewSession(&peer)}
	defer func() {
		_ = c.nc.Close() // with close_notify
		if tidy := c.session.End(); tidy != nil {
			tidy()
		}
	}()
	if s.Implicit && !c.handshake() {
		return
	}
	c.out = c.session.Greet(c.out)
	for c.step() {
	}
}

// step is one Step of the session, which may wait: Lend and Return are nothing
// to a goroutine of its own. It reports whether the connection goes on.
func (c *conn) step() bool {
	n, out, action := c.session.Step(c.data, c.out)
	c.data, c.out = c.data[n:], out
	switch action {
	case codec.NeedMore:
		return c.flush() && c.read()
	case codec.Upgrade:
		return c.upgrade()
	case codec.Close:
		c.flush()
		return false
	default:
		return len(c.out) <= bufferSize || c.flush()
	}
}

func (c *conn) flush() bool {
	if len(c.out) == 0 {
		return true
	}
	_, err := c.nc.Write(c.out)
	c.out = c.out[:0]
	return err == nil
}

// read appends what has arrived to what is buffered.
func (c *conn) read() bool {
	n := copy(c.buf, c.data)
	if n == len(c.buf) {
		if n >= maxBuffer {
			return false
		}
		c.buf = append(c.buf, make([]byte, n)...)
	}
	c.extend(c.nc)
	m, err := c.nc.Read(c.buf[n:])
	c.data = c.buf[:n+m]
	return m > 0 || err == nil
}

func (s *Server) extend(nc net.Conn) {
	if s.Timeout > 0 {
		_ = nc.SetDeadline(time.Now().Add(s.Timeout))
	}
}

func (c *conn) upgrade() bool {
	if len(c.data) > 0 {
		c.out = c.session.Refuse(codec.Injected, c.out)
		c.flush()
		return false
	}
	c.out = c.session.GoAhead(c.out)
	return c.flush() && c.handshake()
}

func (c *conn) handshake() bool {
	c.extend(c.nc)
	tc := tls.Server(c.nc, c.TLS)
	if tc.Handshake() != nil {
		return false
	}
	c.nc = tc
	state := tc.ConnectionState()
	c.out = c.session.Secured(&state, c.out)
	return true
}
