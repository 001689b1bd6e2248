package smtp

import (
	"bytes"
	"strconv"

	"starttlsd/codec"
)

// bdat begins a chunk (RFC 3030 §2). Its content follows the line at once, also
// when it is refused, and is then consumed before the reply; where that would take
// too much, or where its length is not known, the connection ends instead: content
// is never read as commands.
func (s *Session) bdat(arg, out []byte) ([]byte, codec.Action) {
	size, last, ok := parseChunk(arg)
	switch {
	case !ok:
		return s.close(out, errArgument)
	case size > 2*s.maxSize():
		return s.close(out, errTooBig)
	}
	if size == 0 && !last {
		if s.idled(&s.cfg.Limits) {
			return s.close(out, closeJunk)
		}
	}
	s.left, s.last = size, last
	if s.answer != nil {
		s.back = s.phase
		s.to(inRefused)
	} else {
		if s.tx.size+size > s.maxSize() {
			s.answer = errTooBig
		}
		s.to(inChunk)
	}
	_, out, action := s.stepChunk(nil, out)
	if action == codec.NeedMore {
		action = codec.Continue // the line was a frame
	}
	return out, action
}

func parseChunk(arg []byte) (size int64, last, ok bool) {
	count, end, _ := bytes.Cut(arg, []byte{' '})
	n, err := strconv.ParseUint(string(count), 10, 62)
	last = codec.Is(bytes.TrimLeft(end, " "), "LAST")
	return int64(n), last, err == nil && (last || len(end) == 0)
}

// stepChunk consumes content of the chunk, and answers at its end.
func (s *Session) stepChunk(in, out []byte) (int, []byte, codec.Action) {
	switch {
	case s.left > 0 && len(in) == 0:
		return 0, out, codec.NeedMore
	case s.phase == inChunk && !s.lent:
		return 0, out, codec.Lend
	}
	n := int(min(int64(len(in)), s.left))
	s.left -= int64(n)
	if s.phase == inChunk {
		s.tx.text.Check(in[:n])
		flaws := s.tx.text.Flaws()
		if s.left == 0 && s.last {
			flaws = s.tx.text.End()
		}
		s.store(in[:n], flaws)
	}
	if s.left > 0 {
		return n, out, codec.NeedMore
	}
	out, action := s.endChunk(out)
	return n, out, action
}

// endChunk answers a chunk. A refused one ends the transaction; those behind it in
// the pipeline are then refused for want of one (RFC 3030 §2).
func (s *Session) endChunk(out []byte) ([]byte, codec.Action) {
	switch {
	case s.phase == inRefused:
		s.to(s.back)
		return s.refuse(out, s.answer)
	case s.last:
		return s.finish(out)
	case s.answer != nil:
		s.reset()
		return s.refuse(out, s.answer)
	}
	s.to(chunks)
	return say(out, replyOK)
}
