package engine

import (
	"errors"
	"io"
	"sync"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// dataSize is what a transfer reads, and writes, at once. A system call for each
// record of TLS would cost more than the encryption.
const dataSize = 128 << 10

// dataBuffers are what transfers read into, and hold only while there is something to
// read. They have room for that much in records of TLS. Files are no credentials: they
// are not overwritten.
var dataBuffers = sync.Pool{New: func() any { b := make([]byte, dataSize+1024); return &b }}

// slowStart is as far as a client that sends little may wait for acknowledgements.
const slowStart = 64 << 10

// copy carries everything from one side to the other, until the good end of from. With
// an error comes the side that it is of. While nothing comes, there is no buffer, but
// for the rest of a record of TLS.
func (t *transfer) copy(to, from *stream) (*stream, error) {
	e, limits := t.lst.eng, &t.lst.Limits
	counter := &t.lst.stats.fromBackend
	if t.way == codec.Upload {
		counter = &t.lst.stats.toBackend
	}
	to.link.off.steady = true
	out := sink{stream: to}
	if to.tls != nil {
		to.tls.SetLink(&out)
		defer to.tls.SetLink(&to.link)
	}
	began, total := e.now(), int64(0)
	for {
		due := e.now() + limits.BodyStall
		if t.way == codec.Upload {
			if total < slowStart {
				acknowledge(from.link.off.tc)
			}
			// It may not trickle either.
			due = min(due, limits.slowest(began, total))
		}
		_ = from.link.off.tc.SetReadDeadline(e.deadline(due))
		if err := t.refused.Err(); err != nil { // whose deadline was before this one
			return to, err
		}
		if from.tls == nil || from.tls.Buffered() == 0 {
			if err := from.link.await(); err != nil {
				return from, err
			}
		}
		came := e.now()
		n, failed, err := out.take(from)
		began += e.now() - came // while the other side was waited for
		counter.Add(uint64(n))
		total += int64(n)
		switch {
		case failed != nil:
			return to, failed
		case err == io.EOF:
			return nil, nil
		case err != nil && !errors.Is(err, tlsbridge.ErrWouldBlock): // which is nothing but what TLS says to itself
			return from, err
		}
	}
}

// sink is where a transfer goes. It is the link of TLS there, and gathers records.
type sink struct {
	*stream
	wire []byte
}

// Read implements tlsbridge.Link.
func (s *sink) Read(p []byte) (int, error) { return s.link.Read(p) }

// Write implements tlsbridge.Link.
func (s *sink) Write(p []byte) (int, error) {
	s.wire = append(s.wire, p...)
	return len(p), nil
}

// take writes what from has at the moment, n bytes. failed is an error of the writing.
func (s *sink) take(from *stream) (n int, failed, err error) {
	if from.tls == nil {
		off := from.link.off
		if off.ahead == nil {
			return 0, nil, io.EOF
		}
		defer off.freeAhead()
		return len(off.unread), s.put(off.unread), nil
	}
	buf := dataBuffers.Get().(*[]byte)
	defer dataBuffers.Put(buf)
	for more := true; more && err == nil && n < dataSize; more = from.link.off.ahead != nil {
		var m int
		m, err = from.read((*buf)[n:dataSize])
		n += m
	}
	if n > 0 {
		failed = s.put((*buf)[:n])
	}
	return n, failed, err
}

// put writes p. It waits.
func (s *sink) put(p []byte) error {
	if s.tls == nil {
		return s.write(p)
	}
	room := dataBuffers.Get().(*[]byte)
	defer dataBuffers.Put(room)
	s.wire = (*room)[:0]
	_, err := s.tls.Write(p)
	if err == nil {
		_, err = s.link.put(s.wire)
	}
	s.wire = nil
	return err
}
