package imap

import (
	"cmp"
	"crypto/tls"
	"log/slog"

	"starttlsd/codec"
)

// Session is the server side of IMAP on one connection, up to the login. It
// implements codec.Relayed, whose contract says who calls what.
type Session struct {
	cfg     *Config
	peer    *codec.Peer
	backend *backend // nil until there is one
	tag     string   // of the STARTTLS that was reported
	line    codec.Line

	swallow  int32 // octets still to come of a refused command's literal
	taken    int32 // octets of the present command's literals
	commands uint32
	bad      uint32 // see Limits
	junk     uint32

	phase      phase
	secured    bool
	swallowing bool // the rest of a refused command is still to come
	known      bool // a command was recognized
}

// backend is what a session knows of its backend, and of the command that it has.
type backend struct {
	offers  []string // its capabilities, filtered
	line    codec.Line
	tag     string // of the command that it has; "" for none
	left    int    // octets still to come of the client's literal
	await   await  // what a continuation means
	awaited int    // the length of that literal
	reply   int    // octets still to come of a literal in a reply
	midway  bool   // a reply goes on with that literal, and behind it
}

// await is what a command continuation request of the backend is for.
type await uint8

const (
	nothing   await = iota // there must be none
	forClient              // the client waits for it, to send a literal
	forUs                  // the client has not waited (RFC 7888)
	forAnswer              // a SASL challenge
)

var (
	_ codec.Relayed   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
)

// New makes the session of a new connection. It keeps both.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

func limit(configured, standard int) int { return cmp.Or(configured, standard) }

// Greet implements codec.Session. Under TLS the capabilities are the backend's, and
// it is not asked before the client asks.
func (s *Session) Greet(out []byte) []byte {
	s.to(dialogue)
	out = append(out, "* OK "...)
	if !s.secured {
		out = append(append(append(out, "[CAPABILITY "...), s.inClear()...), "] "...)
	}
	return append(append(out, s.cfg.Hostname...), " IMAP4rev1 ready\r\n"...)
}

// inClear is what can be done without TLS (RFC 9051 §6.2.1, §11.1).
func (s *Session) inClear() string {
	if s.cfg.TLS {
		return "IMAP4rev1 ID STARTTLS LOGINDISABLED"
	}
	return "IMAP4rev1 ID LOGINDISABLED"
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	return s.tagged(out, s.tag, "OK Begin TLS negotiation now")
}

// Secured implements codec.Session.
func (s *Session) Secured(_ *tls.ConnectionState, out []byte) []byte {
	s.secured, s.known, s.backend, s.tag = true, false, nil, ""
	s.line.Reset()
	if s.phase == handshake {
		s.to(dialogue)
	}
	return out
}

// Outstanding implements codec.Relayed.
func (s *Session) Outstanding() bool { return s.phase == waiting }

// End implements codec.Session.
func (s *Session) End() func() { return nil }

// Describe implements codec.Describer.
func (s *Session) Describe() (attrs []slog.Attr, trouble bool) {
	attrs = []slog.Attr{slog.Int("commands", int(s.commands))}
	if s.bad > 0 {
		attrs = append(attrs, slog.Int("bad_commands", int(s.bad)))
	}
	return attrs, false
}

var goodbyes = [...]string{
	codec.Busy:        "[UNAVAILABLE] Too many connections", // RFC 5530 §3
	codec.Draining:    "[UNAVAILABLE] Shutting down",
	codec.TimedOut:    "Timed out",
	codec.Injected:    "Nothing may follow STARTTLS before TLS",
	codec.Internal:    "[SERVERBUG] Internal error",
	codec.Unavailable: "[UNAVAILABLE] The server behind this one is not available",
}

// Refuse implements codec.Session.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	switch {
	case s.phase == over, s.phase == handshake:
		return out
	case r == codec.TLSUnavailable:
		s.to(dialogue)
		return s.tagged(out, s.tag, "NO [UNAVAILABLE] TLS is not available at the moment")
	case s.backend != nil && s.backend.midway, s.Outstanding() && r != codec.Unavailable:
		s.to(over)
		return out
	}
	out, _ = s.bye(out, goodbyes[r])
	return out
}

func (s *Session) bye(out []byte, why string) ([]byte, codec.Action) {
	s.to(over)
	return append(append(append(out, "* BYE "...), why...), "\r\n"...), codec.Close
}

func (s *Session) tagged(out []byte, tag, text string) []byte {
	out = append(append(out, tag...), ' ')
	return append(append(out, text...), "\r\n"...)
}
