package smtp

import (
	"strconv"

	"github.com/valyala/bytebufferpool"

	"starttlsd/codec"
)

// transaction is all that belongs to one message, from MAIL to its reply.
type transaction struct {
	env  Envelope
	msg  Message    // nil until Begin has succeeded, and after Commit or Abort
	dot  codec.Dot  // of DATA
	text codec.Text // of BDAT
	hops hops
	size int64
	to   int // octets of env.To
}

// open reports whether the backend holds a message that is not finished.
func (s *Session) open() bool { return s.tx != nil && s.tx.msg != nil }

// reset ends a transaction. It waits if a message is open, which is only while lent.
func (s *Session) reset() {
	if s.tx == nil {
		return
	}
	s.abort()
	s.tx = nil
	s.to(ready)
}

func (s *Session) abort() {
	if msg := s.tx.msg; msg != nil {
		s.tx.msg = nil
		msg.Abort()
	}
}

// data asks for the content. It has to be stored, which may wait, but not before
// it arrives: the connection stays on its loop until then.
func (s *Session) data(_, out []byte) ([]byte, codec.Action) {
	s.answer = nil
	s.to(inData)
	return say(out, replyData)
}

// stepData consumes content up to its end. Content that is refused is consumed
// like any other.
func (s *Session) stepData(in, out []byte) (n int, _ []byte, _ codec.Action) {
	if !s.lent {
		if len(in) == 0 {
			return 0, out, codec.NeedMore
		}
		return 0, out, codec.Lend
	}
	var text []byte
	var pieces *bytebufferpool.ByteBuffer // holds text when it is not one part of in
	done := false
	for n < len(in) && !done {
		var m int
		var piece []byte
		m, piece, done = s.tx.dot.Next(in[n:])
		n += m
		switch {
		case len(text) == 0:
			text = piece
			continue
		case pieces == nil:
			pieces = codec.GetBuffer()
			pieces.B = append(pieces.B, text...)
		}
		pieces.B = append(pieces.B, piece...)
		text = pieces.B
	}
	// One call for all of it: each is a system call, and dots may be many.
	s.store(text, s.tx.dot.Flaws())
	if pieces != nil {
		codec.PutZeroed(pieces)
	}
	if s.tx.size > 2*s.maxSize() { // it may have no end at all
		out, action := s.close(out, errTooBig)
		return n, out, action
	}
	if !done {
		return n, out, codec.NeedMore
	}
	out, action := s.finish(out)
	return n, out, action
}

// store writes a piece of content, in which flaws have been found so far, to the
// backend. From the first thing that goes wrong on, there is nothing to store.
func (s *Session) store(p []byte, flaws codec.Flaw) {
	tx := s.tx
	tx.size += int64(len(p))
	tx.hops.scan(p)
	if r := s.verdict(flaws); r != nil {
		s.answer = r
	} else if s.answer == nil {
		s.write(p)
	}
	if s.answer != nil {
		s.abort()
	}
}

// verdict is what is wrong with the content so far. Of several faults it is always
// the same one, so that the answer does not depend on how the content was cut.
func (s *Session) verdict(flaws codec.Flaw) *reply {
	switch tx := s.tx; {
	case tx.size > s.maxSize():
		return errTooBig
	case flaws&^codec.LongLine != 0:
		return errLineEnd
	case flaws != 0:
		return errTextLine
	case tx.hops.count > int(limit(s.cfg.MaxReceived, defaultReceived)):
		return errLoop
	default:
		return nil
	}
}

// write begins the message if need be, and writes p to it.
func (s *Session) write(p []byte) {
	tx := s.tx
	var err error
	if tx.msg == nil {
		tx.env.ID = s.peer.ID.String() + "." + strconv.Itoa(int(s.begun))
		tx.env.Peer, tx.env.Helo, tx.env.TLS, tx.env.Time = *s.peer, s.helo, s.tls, s.now()
		if tx.msg, err = s.cfg.Backend.Begin(&tx.env); err == nil {
			_, err = tx.msg.Write(s.trace())
		} else {
			tx.msg = nil
		}
	}
	if err == nil && len(p) > 0 {
		_, err = tx.msg.Write(p)
	}
	s.failed(err)
}

func (s *Session) failed(err error) {
	if err != nil {
		s.inTrouble().fault, s.answer = err, refusalOf(err)
	}
}

// finish ends the transaction: the message is delivered, or it is said why not.
func (s *Session) finish(out []byte) ([]byte, codec.Action) {
	tx := s.tx
	if s.answer == nil {
		msg := tx.msg
		tx.msg = nil
		s.failed(msg.Commit())
	}
	s.reset()
	if r := s.answer; r != nil {
		return s.refuse(out, r)
	}
	s.messages++
	s.junk = 0
	return codec.AppendReply(out, 250, "2.0.0", "Accepted as "+tx.env.ID), codec.Continue
}
