package imap

import (
	"bytes"

	"starttlsd/codec"
)

// maxAnswer is the longest SASL response, with its CRLF (RFC 4954 §4 has the same).
const maxAnswer = 12288

// maxReply is the longest line of the backend's before login.
const maxReply = 16 << 10

// login begins LOGIN: what is not a literal of it passes as it is.
func (s *Session) login(tag string, line, up, out []byte) ([]byte, []byte, codec.Action) {
	s.backend.tag = tag
	return s.pass(line, up, out)
}

func (s *Session) authenticate(tag string, line, up, out []byte) ([]byte, []byte, codec.Action) {
	fields := bytes.Fields(line)
	if len(fields) < 3 || !codec.PassesSASL(fields[2]) {
		return s.reject(line, up, out, tag, "NO [CANNOT] That mechanism is not offered")
	}
	s.backend.tag, s.backend.await = tag, forAnswer
	s.to(waiting)
	return append(append(up, line...), "\r\n"...), out, codec.Continue
}

// pass sends a line of LOGIN. If a literal follows, it goes as a synchronizing one:
// whether the backend would take another is of no interest to the client.
func (s *Session) pass(line, up, out []byte) ([]byte, []byte, codec.Action) {
	b := s.backend
	size, sync, lit := literalAt(line)
	b.await = nothing
	if lit {
		if i := bytes.LastIndexByte(line, '{'); i == 0 || line[i-1] != ' ' || !s.takes(size) {
			out, action := s.bye(out, "[TOOBIG] That is no literal that is taken here")
			return up, out, action
		}
		b.awaited, b.await = size, forClient
		if !sync {
			b.await = forUs
			line = append(bytes.TrimSuffix(line, []byte("+}")), '}') // in place: line is consumed
		}
	}
	s.to(waiting)
	return append(append(up, line...), "\r\n"...), out, codec.Continue
}

// stepLiteral passes on what the backend has asked for.
func (s *Session) stepLiteral(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	b := s.backend
	n := min(len(in), b.left)
	if b.left -= n; b.left == 0 {
		s.to(rest)
		return n, append(up, in[:n]...), out, codec.Continue
	}
	return n, append(up, in[:n]...), out, codec.NeedMore
}

// Reply implements codec.Relayed.
func (s *Session) Reply(in, out []byte) (int, []byte, codec.Action) {
	b := s.backend
	if b.reply > 0 {
		n := min(len(in), b.reply)
		b.reply -= n
		return n, append(out, in[:n]...), codec.Content
	}
	n, line, status := b.line.Next(in, maxReply)
	switch {
	case status == codec.LineMore:
		return n, out, codec.NeedMore
	case status != codec.LineOK:
		out, action := s.broken(out)
		return n, out, action
	case b.midway:
		out = s.reply(line, out)
		return n, out, codec.Content
	}
	first, text, _ := bytes.Cut(line, []byte{' '})
	var action codec.Action
	switch {
	case string(first) == "+":
		out, action = s.goOn(line, out)
	case string(first) == "*" && hasWord(text, "BYE"):
		s.to(over)
		out, action = append(append(out, line...), "\r\n"...), codec.Close
	case string(first) == "*":
		out, action = s.reply(filter(line), out), codec.Content
	case b.tag != "" && string(first) == b.tag:
		out, action = s.result(line, text, out)
	default:
		out, action = s.broken(out)
	}
	return n, out, action
}

// reply passes on a line, behind which a literal may follow.
func (s *Session) reply(line, out []byte) []byte {
	size, _, lit := literalAt(line)
	s.backend.reply, s.backend.midway = 0, lit
	if lit {
		s.backend.reply = size
	}
	return append(append(out, line...), "\r\n"...)
}

// broken ends a session whose backend does not speak IMAP.
func (s *Session) broken(out []byte) ([]byte, codec.Action) {
	if s.backend.midway {
		s.to(over)
		return out, codec.Close
	}
	return s.bye(out, goodbyes[codec.Unavailable])
}

// goOn is the backend's request to go on with a command.
func (s *Session) goOn(line, out []byte) ([]byte, codec.Action) {
	b := s.backend
	await := b.await
	if s.phase != waiting || await == nothing {
		return s.broken(out)
	}
	if await != forUs {
		out = append(append(out, line...), "\r\n"...)
	}
	if await == forAnswer {
		s.to(answer)
		return out, codec.Continue
	}
	b.left, b.await = b.awaited, nothing
	s.to(literal)
	return out, codec.Continue
}

// result is the end of the command that the backend has. From a login that has
// succeeded on, nothing is looked at any more.
func (s *Session) result(line, text, out []byte) ([]byte, codec.Action) {
	b := s.backend
	complete := s.phase == waiting && (b.await == nothing || b.await == forAnswer)
	switch {
	case hasWord(text, "OK") && complete:
		s.to(over)
		b.tag = ""
		return append(append(out, filter(line)...), "\r\n"...), codec.Opaque
	case hasWord(text, "NO"), hasWord(text, "BAD"):
	default:
		return s.broken(out)
	}
	switch { // what the client has yet to send of the command
	case s.phase == literal:
		s.swallow, s.swallowing = int32(b.left), true
	case s.phase == rest:
		s.swallowing = true
	case b.await == forUs:
		s.swallow, s.swallowing = int32(b.awaited), true
	}
	b.tag, b.await, b.left = "", nothing, 0
	s.junk++
	s.line.Reset()
	s.to(dialogue)
	return append(append(out, filter(line)...), "\r\n"...), codec.Continue
}
