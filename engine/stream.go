package engine

import (
	"github.com/valyala/bytebufferpool"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// stream is one side of what a connection carries: the client's, or the backend's.
type stream struct {
	tls  *tlsbridge.Conn            // nil in plaintext
	in   *bytebufferpool.ByteBuffer // read and not yet consumed by the session; nil when there is nothing
	link link
}

func (s *stream) read(p []byte) (int, error) {
	if s.tls != nil {
		return s.tls.Read(p)
	}
	return s.link.Read(p)
}

func (s *stream) write(p []byte) (err error) {
	if s.tls != nil {
		_, err = s.tls.Write(p)
	} else {
		_, err = s.link.Write(p)
	}
	return err
}

// join is what was kept, and p behind it.
func (s *stream) join(p []byte) []byte {
	if s.in == nil {
		return p
	}
	s.in.B = append(s.in.B, p...)
	return s.in.B
}

// keep stores what is left of the input, which may be in s.in itself.
func (s *stream) keep(rest []byte) {
	switch {
	case len(rest) == 0:
		release(&s.in)
	case s.in == nil:
		s.in = codec.GetBuffer()
		s.in.B = append(s.in.B, rest...)
	default:
		s.in.B = append(s.in.B[:0], rest...)
	}
}
