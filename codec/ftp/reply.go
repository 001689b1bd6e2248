package ftp

import (
	"bytes"

	"starttlsd/codec"
)

// relay is what a session with a backend has besides.
type relay struct {
	data    codec.Data // nil: there are no data connections
	asked   codec.Pipeline[kind]
	line    codec.Line // of the backend's
	opening opening
	pending []byte // the transfer's command
	early   bool   // which waits for the handshake too
	begun   bool   // the client was told to begin it

	multi   int    // the code of a reply that has begun and not ended, 0 without
	now     kind   // whose it is
	instead string // what is said in its place; "" for nothing
	mute    bool   // it is not passed on

	abor    bool // ABOR was sent in a transfer, and not answered
	aborted bool // the client has ended the transfer
}

const (
	maxReply = 8 << 10  // octets of a line
	maxAhead = 12 << 10 // what a backend may say while its last reply is held back
)

// Reply implements codec.Relayed.
func (s *Session) Reply(in, out []byte) (int, []byte, codec.Action) {
	r := s.relay
	reader := r.line
	n, line, status := reader.NextOfAny(in, maxReply)
	switch {
	case status == codec.LineMore:
		r.line = reader
		return n, out, codec.NeedMore
	case status == codec.LineTooLong:
		return s.broken(n, out)
	case r.multi != 0:
		r.line = reader
		code, more, ok := parseReply(line)
		if !ok || more || code != r.multi {
			return n, s.content(line, out), codec.Content
		}
		return s.last(n, code, line, out)
	}
	code, more, ok := parseReply(line)
	k, asked := s.answers()
	switch {
	case !ok, !asked && code != 421:
		return s.broken(n, out)
	case code == 421: // the backend is about to close
		s.to(over)
		if more {
			line = append(append(bytes.Clone(line[:3]), ' '), line[4:]...) // the rest is not waited for
		}
		return n, sayScrubbed(out, line), codec.Close
	}
	r.now, r.mute, r.instead = k, k == open && code < 400 || k == transfer && code < 200 && r.begun, ""
	if k == transfer && code >= 200 {
		wait, instead := s.verdict(code)
		if wait && len(in) > maxAhead {
			return s.broken(n, out)
		}
		if wait {
			return 0, out, codec.Hold
		}
		r.instead, r.mute = instead, instead != ""
	}
	r.line = reader
	if more {
		r.multi = code
		if k == feat && code >= 500 {
			r.mute = true
		}
		return n, s.content(line, out), codec.Content
	}
	return s.last(n, code, line, out)
}

// parseReply reads the code of a reply's first line, and whether others follow (RFC
// 959 §4.2).
func parseReply(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	return code, len(line) > 3 && line[3] == '-', code >= 100 && code < 600
}

// answers is the command that a reply is for.
func (s *Session) answers() (k kind, asked bool) {
	r := s.relay
	switch {
	case r.asked.Len() > 0:
		return *r.asked.First(), true
	case r.abor:
		return abor, true
	}
	return other, false
}

// content passes on a line within a reply, or its first.
func (s *Session) content(line, out []byte) []byte {
	r := s.relay
	switch {
	case r.mute, r.now == feat && s.withheld(line):
		return out
	}
	return sayScrubbed(out, line)
}

// last is for the last line of a reply, or the only one.
func (s *Session) last(n, code int, line, out []byte) (int, []byte, codec.Action) {
	r := s.relay
	single := r.multi == 0
	r.multi = 0
	switch {
	case r.instead != "":
		out = say(out, r.instead)
	case r.now == open && code >= 200 && code < 400:
		out = say(out, s.opened(code, string(line)))
	case r.now == feat && (code >= 500 || single): // it has no list
		out = s.features(say(out, "211-Features"))
	case r.now == feat:
		out = s.features(out)
	case r.mute:
	default:
		out = sayScrubbed(out, line)
	}
	if code < 200 {
		if r.now == transfer && r.data.State() == codec.DataConnected {
			r.data.Start()
		}
		return n, out, codec.Continue
	}
	return n, out, s.answered(code)
}

// answered takes note of a reply that is complete.
func (s *Session) answered(code int) codec.Action {
	r := s.relay
	switch r.now {
	case abor:
		if r.abor {
			r.abor = false
			break
		}
		fallthrough
	default:
		r.asked.Done()
	}
	switch {
	case r.now == quit:
		s.to(over)
		return codec.Close
	case r.now == login && (code == 230 || code == 232): // RFC 2228 §5
		s.login, s.settled = true, true
		s.junk, s.bad = 0, 0
	case r.now == login && (code == 331 || code == 332): // for another user
		s.login = false
	case r.now == login && code >= 400:
		s.junk++
	case r.now == rein && code < 300:
		s.reset()
		if r.data != nil {
			r.data.Close()
		}
	}
	if s.login && code < 400 { // a client that gets on may try what is refused, for each of many files
		s.bad = 0
	}
	if r.asked.Len() == 0 && !r.abor {
		s.to(dialogue)
	}
	return codec.Continue
}

// broken ends a session whose backend does not speak FTP.
func (s *Session) broken(n int, out []byte) (int, []byte, codec.Action) {
	inside := s.relay.multi != 0
	s.garbled = true
	s.to(over)
	if inside {
		return n, out, codec.Close
	}
	return n, say(out, goodbyes[codec.Unavailable]), codec.Close
}

// sayScrubbed says a line of the backend's. A control character in it, such as a line
// feed in a file's name, would be another reply to some clients.
func sayScrubbed(out, line []byte) []byte {
	start := len(out)
	out = append(out, line...)
	for i, c := range out[start:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			out[start+i] = '?'
		}
	}
	return append(out, "\r\n"...)
}

// withheld reports whether a line of the backend's features is not true of us: TLS
// and data connections are ours (RFC 2389 §3.2).
func (s *Session) withheld(line []byte) bool {
	word, _, _ := bytes.Cut(bytes.TrimLeft(line, " "), []byte{' '})
	switch codec.Upper(word) {
	case "AUTH", "PBSZ", "PROT", "CCC", "ADAT", "MIC", "CONF", "ENC", "SSCN", "CPSV", "SPSV",
		"MODE", "PASV", "EPSV", "PORT", "EPRT", "LPSV", "LPRT":
		return true
	}
	return false
}

// features are ours, and the end of the list.
func (s *Session) features(out []byte) []byte {
	if s.cfg.TLS && !s.secured {
		out = say(out, " AUTH TLS")
	}
	if s.cfg.Active {
		out = say(out, " EPRT")
	}
	for _, f := range []string{" EPSV", " PASV", " PBSZ", " PROT"} {
		out = say(out, f)
	}
	return say(out, "211 End")
}
