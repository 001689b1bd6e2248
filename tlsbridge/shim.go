package tlsbridge

import (
	"io"
	"net"
	"time"
)

// shim is the Conn as crypto/tls sees it: the net.Conn below TLS. During the
// handshake it is used by the handshake's coroutine, later by whoever calls the
// Conn's methods.
type shim Conn

// Read returns data with a nil error, or no data with an error, never (0, nil):
// crypto/tls would spin on that. It never returns bytes of two records: the
// buffer that crypto/tls keeps for ever would grow to 40 KB instead of 18 KB.
func (s *shim) Read(p []byte) (int, error) {
	if h := s.hs.Load(); h != nil {
		return h.read(p)
	}
	switch {
	case s.ahead > 0:
		n := copy(p, s.first[:s.ahead])
		copy(s.first[:], s.first[n:])
		s.ahead -= uint8(n)
		return n, nil
	case s.early != nil:
		n := copy(s.records.limit(p), s.early.B[s.served:])
		s.records.advance(p[:n])
		if s.served += n; s.served == s.early.Len() {
			(*Conn)(s).dropEarly()
		}
		return n, nil
	}
	return s.fetch(p)
}

// fetch reads from the link, up to the end of the record or of its header.
func (s *shim) fetch(p []byte) (int, error) {
	if s.linkErr != nil {
		s.ended = true
		return 0, s.linkErr
	}
	p = s.records.limit(p)
	n, err := s.link.Read(p)
	if err != nil && !temporary(err) {
		s.linkErr = err
	}
	switch {
	case n > 0:
		s.records.advance(p[:n])
		return n, nil
	case err == nil:
		return 0, ErrWouldBlock
	}
	s.ended = s.linkErr != nil
	return 0, err
}

// peek returns the link's temporary error, if there is no input. It spares
// crypto/tls, which has none left either, a call that would only allocate.
func (s *shim) peek() error {
	n, err := s.fetch(s.first[:])
	s.ahead = uint8(n)
	if n == 0 && temporary(err) {
		return err
	}
	return nil
}

// Write passes a record on. The buffer belongs to a pool of crypto/tls, and a
// short write would corrupt the stream, hence the terms of Link.Write.
func (s *shim) Write(p []byte) (int, error) {
	if h := s.hs.Load(); h != nil {
		return h.write(p)
	}
	if s.writeErr != nil {
		return 0, s.writeErr
	}
	n, err := s.link.Write(p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	s.writeErr = err
	return n, err
}

// Close is not used: the link is its owner's to close.
func (s *shim) Close() error { return nil }

// SetWriteDeadline is called by crypto/tls around close_notify only: with a
// bound for sending it, which a lent link wants, and then with a time in the
// past, which would drop what is queued before it.
func (s *shim) SetWriteDeadline(t time.Time) error {
	if l, ok := s.link.(interface{ SetWriteDeadline(time.Time) error }); ok && time.Until(t) > 0 {
		return l.SetWriteDeadline(t)
	}
	return nil
}

// SetReadDeadline and SetDeadline have no caller: owners have the link itself.
func (s *shim) SetReadDeadline(time.Time) error { return nil }
func (s *shim) SetDeadline(time.Time) error     { return nil }

func (s *shim) LocalAddr() net.Addr {
	if l, ok := s.link.(interface{ LocalAddr() net.Addr }); ok {
		return l.LocalAddr()
	}
	return noAddr{}
}

func (s *shim) RemoteAddr() net.Addr {
	if l, ok := s.link.(interface{ RemoteAddr() net.Addr }); ok {
		return l.RemoteAddr()
	}
	return noAddr{}
}

type noAddr struct{}

func (noAddr) Network() string { return "tlsbridge" }
func (noAddr) String() string  { return "unknown" }

// recordCut follows the record structure of the stream, so that a read can end
// where a record ends. It is part of the stream's state and outlives every Link.
type recordCut struct {
	header [recordHeader]byte
	have   uint8  // bytes of the header
	body   uint16 // bytes of the body to come
}

// limit cuts p to the rest of the header, or to the rest of the body.
func (r *recordCut) limit(p []byte) []byte {
	if r.body > 0 {
		return p[:min(len(p), int(r.body))]
	}
	return p[:min(len(p), recordHeader-int(r.have))]
}

// advance takes note of b, which limit has allowed.
func (r *recordCut) advance(b []byte) {
	if r.body > 0 {
		r.body -= uint16(len(b))
		return
	}
	r.have += uint8(copy(r.header[r.have:], b))
	if r.have == recordHeader {
		r.have, r.body = 0, uint16(length(r.header[:]))
	}
}
