package sieve

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
	TLS        bool   // STARTTLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS bool   // nothing changes: there is no login in clear in any case
	Limits     Limits // of one session
}

// Limits bound what a session may do before login.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 8192
	Literal      int // octets of a literal, 8192
	BadCommands  int // syntax errors and unknown commands, 5: the last ends the session
	JunkCommands int // commands that do no work, failed logins among them, 50
}

const (
	defaultLine    = 8192
	defaultLiteral = 8192
	defaultBad     = 5
	defaultJunk    = 50
)

// phase is what the session expects next of the client.
type phase uint8

const (
	silent    phase = iota // nothing was said yet
	dialogue               // a command
	answer                 // a SASL response
	literal                // the octets of a literal of AUTHENTICATE, or of a SASL response
	rest                   // what follows that literal
	waiting                // nothing: the backend has a command, or a part of one
	asked                  // nothing: STARTTLS was reported to the engine
	handshake              // nothing: the go-ahead was given
	over                   // nothing: the last reply was said, or the client has logged in
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "dialogue", "answer", "literal", "rest", "waiting", "asked", "handshake", "over"}[p]
}

// successors says which phases may follow one. Every phase may be followed by over.
var successors = [phaseCount][]phase{
	silent:    {dialogue},
	dialogue:  {literal, waiting, asked},
	answer:    {literal, waiting, dialogue}, // the last where the backend has not waited
	literal:   {rest, dialogue},
	rest:      {waiting, dialogue},
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
	panic(fmt.Sprintf("sieve: phase %v after %v", next, s.phase))
}

// Session is the server side of ManageSieve on one connection, up to the login. It
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

	announced  bool // the backend's list has been sent
	swallow    int  // octets still to come of a refused command's literal
	swallowing bool // the rest of a refused command is still to come
}

// backend is what a session with a backend has besides.
type backend struct {
	list    []byte // its capabilities, filtered, up to and without OK
	line    codec.Line
	has     bool   // AUTHENTICATE
	command []byte // AUTHENTICATE, whose literal is still to come
	text    []byte // the client's literal
	left    int    // octets of it still to come
	long    bool   // one of the responses was longer than maxQuoted
	reply   int    // octets still to come of a literal in a reply
	partial bool   // a reply goes on with that literal, and behind it

	challenge bool   // that reply is a SASL challenge
	verdict   string // or else the first word of it
}

var (
	_ codec.Relayed   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
)

// New makes the session of a new connection. It keeps both.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

func limit(configured, standard int) uint32 { return uint32(cmp.Or(configured, standard)) }

// Greet implements codec.Session. Under TLS the list is the backend's, for which see
// Step.
func (s *Session) Greet(out []byte) []byte {
	s.to(dialogue)
	if s.secured {
		return out
	}
	return s.ready(s.inClear(out))
}

// ready ends a list that was not asked for. Some clients wait for the text.
func (s *Session) ready(out []byte) []byte {
	return say(out, `OK "`+s.cfg.Hostname+` ManageSieve ready"`)
}

// inClear is what can be done without TLS.
func (s *Session) inClear(out []byte) []byte {
	out = append(out, "\"IMPLEMENTATION\" \"starttlsd\"\r\n\"SASL\" \"\"\r\n\"SIEVE\" \"\"\r\n"...)
	if s.cfg.TLS {
		out = append(out, "\"STARTTLS\"\r\n"...)
	}
	return append(out, "\"VERSION\" \"1.0\"\r\n"...)
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	return say(out, `OK "Begin TLS negotiation now"`)
}

// Secured implements codec.Session.
func (s *Session) Secured(_ *tls.ConnectionState, out []byte) []byte {
	s.secured, s.known, s.backend, s.announced = true, false, nil, false
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

// goodbyes end a session (RFC 5804 §1.2, §1.3).
var goodbyes = [...]string{
	codec.Busy:        `BYE (TRYLATER) "Too many connections"`,
	codec.Draining:    `BYE (TRYLATER) "Shutting down"`,
	codec.TimedOut:    `BYE "Timed out"`,
	codec.Injected:    `BYE "Nothing may follow STARTTLS before TLS"`,
	codec.Internal:    `BYE (TRYLATER) "Internal error"`,
	codec.Unavailable: `BYE (TRYLATER) "The server behind this one is not available"`,
}

// Refuse implements codec.Session.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	switch {
	case s.phase == over, s.phase == handshake:
		return out
	case r == codec.TLSUnavailable:
		s.to(dialogue)
		return say(out, `NO (TRYLATER) "TLS is not available at the moment"`)
	case s.backend != nil && s.backend.partial, s.Outstanding() && r != codec.Unavailable:
		s.to(over)
		return out
	}
	s.to(over)
	return say(out, goodbyes[r])
}

func say(out []byte, text string) []byte { return append(append(out, text...), "\r\n"...) }
