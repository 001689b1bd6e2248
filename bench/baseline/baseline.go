// Package baseline serves a codec.Session the plain way in Go: a goroutine a
// connection, blocking reads and writes, tls.Server on STARTTLS. It is what the
// engine is measured against, and no server to put on the internet: it has no
// limits and no drain.
package baseline

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"

	"starttlsd/codec"
)

// Server serves the connections of one listener.
type Server struct {
	TLS        *tls.Config
	NewSession func(codec.Peer) codec.Session
	Timeout    time.Duration // of a read or a handshake; 0: none

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	served sync.WaitGroup
}

// Serve accepts until ln is closed.
func (s *Server) Serve(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		s.track(nc)
		go func() {
			defer s.untrack(nc)
			s.serve(nc)
		}()
	}
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

// bufferSize is that of bufio, which such servers use.
const bufferSize = 4096

func (s *Server) serve(nc net.Conn) {
	addr := func(a net.Addr) *net.TCPAddr { return a.(*net.TCPAddr) }
	session := s.NewSession(codec.Peer{
		ID:     "baseline",
		Remote: addr(nc.RemoteAddr()).AddrPort(),
		Local:  addr(nc.LocalAddr()).AddrPort(),
	})
	defer func() {
		if tidy := session.End(); tidy != nil {
			tidy()
		}
	}()
	buf := make([]byte, bufferSize)
	data := buf[:0]
	out := session.Greet(nil)
	for {
		n, replies, action := session.Step(data, out)
		data, out = data[n:], replies
		if action == codec.NeedMore || action == codec.Close || len(out) > bufferSize {
			if _, err := nc.Write(out); err != nil || action == codec.Close {
				return
			}
			out = out[:0]
		}
		switch action {
		case codec.NeedMore:
			n := copy(buf, data)
			if n == len(buf) {
				return
			}
			if s.Timeout > 0 {
				_ = nc.SetReadDeadline(time.Now().Add(s.Timeout))
			}
			m, err := nc.Read(buf[n:])
			if data = buf[:n+m]; m == 0 && err != nil {
				return
			}
		case codec.Upgrade:
			tc, err := s.upgrade(nc, session, len(data), out)
			if err != nil {
				return
			}
			nc = tc
			state := tc.ConnectionState()
			out = session.Secured(&state, out[:0])
		}
	}
}

var errInjected = errors.New("plaintext behind STARTTLS")

func (s *Server) upgrade(nc net.Conn, session codec.Session, behind int, out []byte) (*tls.Conn, error) {
	if behind > 0 {
		_, _ = nc.Write(session.Refuse(codec.Injected, out))
		return nil, errInjected
	}
	if _, err := nc.Write(session.GoAhead(out)); err != nil {
		return nil, err
	}
	if s.Timeout > 0 {
		_ = nc.SetDeadline(time.Now().Add(s.Timeout))
	}
	tc := tls.Server(nc, s.TLS)
	return tc, tc.Handshake()
}
