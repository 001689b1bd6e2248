package pop3

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"

	"starttlsd/codec"
)

// Config is what all sessions of a listener share. It is read-only once the first
// Session is made of it. A zero limit means its default.
type Config struct {
	Hostname   string // in the greeting
	TLS        bool   // STLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS bool   // nothing changes: there is no login in clear in any case
	Limits     Limits // of one session
}

// Limits bound what a session may do before login.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 2048
	BadCommands  int // syntax errors and unknown commands, 5: the last ends the session
	JunkCommands int // commands that do no work, failed logins among them, 50
}

const (
	defaultLine = 2048
	defaultBad  = 5
	defaultJunk = 50
)

// phase is what the session expects next of the client.
type phase uint8

const (
	silent    phase = iota // nothing was said yet
	dialogue               // a command
	answer                 // a SASL response
	waiting                // nothing: the backend has a command
	asked                  // nothing: STLS was reported to the engine
	handshake              // nothing: the go-ahead was given
	over                   // nothing: the last reply was said, or the client has logged in
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "dialogue", "answer", "waiting", "asked", "handshake", "over"}[p]
}

// successors says which phases may follow one. Every phase may be followed by over.
var successors = [phaseCount][]phase{
	silent:    {dialogue},
	dialogue:  {waiting, asked},
	answer:    {waiting, dialogue}, // the latter where the backend has not waited
	waiting:   {dialogue, answer},
	asked:     {dialogue, handshake}, // back when TLS is unavailable
	handshake: {dialogue},
}

// to is the one place where the phase changes.
func (s *Session) to(next phase) {
	if next == s.phase || next == over {
		s.phase = next
		return
	}
	for _, p := range successors[s.phase] {
		if p == next {
			s.phase = next
			return
		}
	}
	panic(fmt.Sprintf("pop3: phase %v after %v", next, s.phase))
}

// Session is the server side of POP3 on one connection, up to the login. It
// implements codec.Relayed, whose contract says who calls what.
type Session struct {
	cfg     *Config
	peer    *codec.Peer
	backend *backend // nil until there is one
	line    codec.Line

	commands uint32
	bad      uint32 // see Limits
	junk     uint32

	phase   phase
	secured bool
	known   bool // a command was recognized
}

// backend is what a session with a backend has besides.
type backend struct {
	line   codec.Line
	has    kind // the command that it has
	long   bool // which may be two to it
	midway bool // the list in its reply has begun and not ended
}

var (
	_ codec.Relayed   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
)

// New makes the session of a new connection. It keeps both.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

func limit(configured, standard int) uint32 { return uint32(cmp.Or(configured, standard)) }

// Greet implements codec.Session. There is no timestamp in it: no APOP (RFC 1939 §7).
func (s *Session) Greet(out []byte) []byte {
	s.to(dialogue)
	return say(out, "+OK "+s.cfg.Hostname+" POP3 ready")
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	return say(out, "+OK Begin TLS negotiation now")
}

// Secured implements codec.Session.
func (s *Session) Secured(_ *tls.ConnectionState, out []byte) []byte {
	s.secured, s.known, s.backend = true, false, nil
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

// goodbyes end a session. A time-out has none (RFC 1939 §3). The codes in brackets
// are those of RFC 3206.
var goodbyes = [...]string{
	codec.Busy:        "-ERR [SYS/TEMP] Too many connections",
	codec.Draining:    "-ERR [SYS/TEMP] Shutting down",
	codec.Injected:    "-ERR Nothing may follow STLS before TLS",
	codec.Internal:    "-ERR [SYS/TEMP] Internal error",
	codec.Unavailable: "-ERR [SYS/TEMP] The server behind this one is not available",
}

// Refuse implements codec.Session. POP3 has only replies: where nothing was asked,
// there is nothing to say but in place of the greeting.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	switch {
	case s.phase == over, s.phase == handshake:
		return out
	case r == codec.TLSUnavailable:
		s.to(dialogue)
		return say(out, "-ERR [SYS/TEMP] TLS is not available at the moment")
	case r == codec.TimedOut, s.backend != nil && s.backend.midway, s.Outstanding() && r != codec.Unavailable:
		s.to(over)
		return out
	}
	s.to(over)
	return say(out, goodbyes[r])
}

func say(out []byte, text string) []byte { return append(append(out, text...), "\r\n"...) }
