package nntp

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
	RequireTLS bool   // in clear only CAPABILITIES, STARTTLS, HELP, DATE and QUIT
	Limits     Limits // of one session
}

// Limits bound what a session may do before login.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 2048
	BadCommands  int // syntax errors and unknown commands, 5: the last ends the session
	JunkCommands int // commands that do no work since the last article, failed logins among them, 50
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
	waiting                // nothing: what comes depends on a reply of the backend's
	answer                 // a SASL response
	content                // an article
	swallow                // an article that is refused
	asked                  // nothing: STARTTLS was reported to the engine
	handshake              // nothing: the go-ahead was given
	over                   // nothing: the last reply was said
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "dialogue", "waiting", "answer", "content", "swallow", "asked", "handshake", "over"}[p]
}

// successors says which phases may follow one. Every phase may be followed by over.
var successors = [phaseCount][]phase{
	silent:    {dialogue},
	dialogue:  {waiting, content, swallow, asked},
	waiting:   {dialogue, answer, content},
	answer:    {waiting, dialogue}, // the latter where the backend has not waited
	content:   {dialogue, swallow},
	swallow:   {dialogue},
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
	panic(fmt.Sprintf("nntp: phase %v after %v", next, s.phase))
}

// Session is the server side of NNTP on one connection with a server behind it. It
// implements codec.Relayed, whose contract says who calls what.
type Session struct {
	cfg   *Config
	peer  *codec.Peer
	relay *relay // nil until there is a backend
	body  *body  // the article that is coming, nil without
	line  codec.Line

	commands uint32
	articles uint32 // that went either way
	bad      uint32 // see Limits
	junk     uint32

	phase   phase
	secured bool
	known   bool // a command was recognized
	reader  bool // MODE READER was accepted; it outlives the upgrade (RFC 4642 §2.2.2)
}

var (
	_ codec.Relayed   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
)

// New makes the session of a new connection. It keeps both.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

func limit(configured, standard int) uint32 { return uint32(cmp.Or(configured, standard)) }

// Greet implements codec.Session. Whether posting is allowed the backend knows, which
// is asked by MODE READER (RFC 3977 §5.3).
func (s *Session) Greet(out []byte) []byte {
	s.to(dialogue)
	return say(out, "200 "+s.cfg.Hostname+" NNTP ready")
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	return say(out, "382 Continue with TLS negotiation")
}

// Secured implements codec.Session.
func (s *Session) Secured(_ *tls.ConnectionState, out []byte) []byte {
	s.secured, s.known, s.relay, s.body = true, false, nil, nil
	s.line.Reset()
	if s.phase == handshake {
		s.to(dialogue)
	}
	return out
}

// Outstanding implements codec.Relayed.
func (s *Session) Outstanding() bool {
	return s.relay != nil && s.relay.asked.Len() > 0 && s.phase != answer
}

// End implements codec.Session.
func (s *Session) End() func() { return nil }

// Describe implements codec.Describer.
func (s *Session) Describe() (attrs []slog.Attr, trouble bool) {
	attrs = []slog.Attr{slog.Int("commands", int(s.commands)), slog.Int("articles", int(s.articles))}
	if s.bad > 0 {
		attrs = append(attrs, slog.Int("bad_commands", int(s.bad)))
	}
	return attrs, false
}

// goodbyes end a session (RFC 3977 §3.2.1).
var goodbyes = [...]string{
	codec.Busy:        "400 Too many connections",
	codec.Draining:    "400 Shutting down",
	codec.TimedOut:    "400 Timed out",
	codec.Injected:    "400 Nothing may follow STARTTLS before TLS",
	codec.Internal:    "400 Internal error",
	codec.Unavailable: "400 The server behind this one is not available",
}

// Refuse implements codec.Session. NNTP has only replies (RFC 3977 §3.1): where
// nothing was asked, there is nothing to say but in place of the greeting.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	said := s.phase
	switch {
	case said == over, said == handshake:
		return out
	case r == codec.TLSUnavailable:
		s.to(dialogue)
		return say(out, "580 TLS is not available at the moment")
	}
	dialling := r == codec.Unavailable && s.relay == nil
	owed := r == codec.Unavailable && (s.Outstanding() || said == content || said == swallow)
	s.to(over)
	if s.relay != nil && s.relay.midway || said != silent && said != asked && !dialling && !owed {
		return out
	}
	return say(out, goodbyes[r])
}

func say(out []byte, text string) []byte { return append(append(out, text...), "\r\n"...) }
