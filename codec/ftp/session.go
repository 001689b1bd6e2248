package ftp

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"

	"starttlsd/codec"
)

// Policy says what has to be under TLS.
type Policy uint8

const (
	ForData    Policy = iota // login and data connections
	ForControl               // login; a data connection may be in clear (PROT C)
	Optional                 // nothing
)

// Config is what all sessions of a listener share. It is read-only once the first
// Session is made of it. A zero limit means its default.
type Config struct {
	Hostname   string // in the greeting
	TLS        bool   // AUTH TLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS Policy
	Active     bool   // PORT and EPRT are served
	PASV       []byte // the four octets of the address told in reply to PASV; nil: the one that the client has reached
	Limits     Limits // of one session
}

// Limits bound what a session may do.
type Limits struct {
	Line         int // octets of a command line with its CRLF, 2048
	BadCommands  int // syntax errors and unknown commands, 5: the last ends the session; four times as many after login
	JunkCommands int // commands that do no work, before login, failed logins among them, 50
}

const (
	defaultLine = 2048
	defaultBad  = 5
	defaultJunk = 50
)

// phase is what the session expects next of the client.
type phase uint8

const (
	silent     phase = iota // nothing was said yet
	dialogue                // a command
	waiting                 // nothing: the backend has a command
	connecting              // ABOR: a transfer's connections are awaited, its command is pending
	moving                  // ABOR or STAT: the backend has a transfer's command
	asked                   // nothing: AUTH was reported to the engine
	handshake               // nothing: the go-ahead was given
	over                    // nothing: the last reply was said
	phaseCount
)

func (p phase) String() string {
	return [phaseCount]string{"silent", "dialogue", "waiting", "connecting", "moving", "asked", "handshake", "over"}[p]
}

// successors says which phases may follow one. Every phase may be followed by over.
var successors = [phaseCount][]phase{
	silent:     {dialogue},
	dialogue:   {waiting, connecting, asked},
	waiting:    {dialogue},
	connecting: {dialogue, moving},
	moving:     {dialogue},
	asked:      {dialogue, handshake}, // back when TLS is unavailable
	handshake:  {dialogue},
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
	panic(fmt.Sprintf("ftp: phase %v after %v", next, s.phase))
}

// Session is the server side of FTP on one control connection. It implements
// codec.Relayed, whose contract says who calls what.
type Session struct {
	cfg   *Config
	peer  *codec.Peer
	relay *relay // nil until there is a backend
	line  codec.Line
	sni   string // the host that the client has asked for in its handshake

	commands  uint32
	transfers uint32 // that were complete
	failed    uint32 // transfers that were not
	bad       uint32 // see Limits
	junk      uint32

	phase    phase
	secured  bool
	implicit bool // TLS came first
	known    bool // a command was recognized
	login    bool // the client has logged in
	settled  bool // it has, at some time
	garbled  bool // the backend has not kept to the protocol
	sized    bool // PBSZ was said
	private  bool // PROT P is in force
	ssl      bool // AUTH SSL was said, which stands for PROT P as well
	epsvOnly bool // EPSV ALL was said
}

var (
	_ codec.Relayed   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
	_ codec.Settler   = (*Session)(nil)
)

// New makes the session of a new connection. It keeps both.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

func limit(configured, standard int) uint32 { return uint32(cmp.Or(configured, standard)) }

// Greet implements codec.Session.
func (s *Session) Greet(out []byte) []byte {
	s.to(dialogue)
	return say(out, "220 "+s.cfg.Hostname+" FTP ready")
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	return say(out, "234 Begin TLS negotiation now")
}

// Secured implements codec.Session. The user has to log in again (RFC 4217 §4.2).
func (s *Session) Secured(state *tls.ConnectionState, out []byte) []byte {
	s.implicit = s.phase == silent
	s.sni = state.ServerName
	s.secured, s.known, s.relay = true, false, nil
	s.line.Reset()
	s.reset()
	if s.phase == handshake {
		s.to(dialogue)
	}
	return out
}

// reset is the state behind the greeting. Data connections are private where nobody
// has negotiated anything, and where the client has asked for it by way of AUTH SSL.
func (s *Session) reset() {
	s.login, s.sized, s.epsvOnly = false, false, false
	s.private = s.implicit || s.secured && s.ssl
}

// LoggedIn implements codec.Settler. Who logs in anew is no stranger.
func (s *Session) LoggedIn() bool { return s.settled }

// Outstanding implements codec.Relayed.
func (s *Session) Outstanding() bool {
	return s.relay != nil && (s.phase == waiting || s.phase == connecting || s.phase == moving)
}

// End implements codec.Session.
func (s *Session) End() func() { return nil }

// Describe implements codec.Describer.
func (s *Session) Describe() (attrs []slog.Attr, trouble bool) {
	attrs = []slog.Attr{slog.Int("commands", int(s.commands)), slog.Int("transfers", int(s.transfers))}
	if s.failed > 0 {
		attrs = append(attrs, slog.Int("failed_transfers", int(s.failed)))
	}
	if s.bad > 0 {
		attrs = append(attrs, slog.Int("bad_commands", int(s.bad)))
	}
	if s.garbled {
		attrs = append(attrs, slog.String("backend", "it said what it was not asked; does it expect a PROXY header if there is one?"))
	}
	return attrs, s.garbled
}

// goodbyes end a session: 421 may answer any command (RFC 959 §5.4).
var goodbyes = [...]string{
	codec.Busy:        "421 Too many connections",
	codec.Draining:    "421 Shutting down",
	codec.TimedOut:    "421 Timed out",
	codec.Injected:    "421 Nothing may follow AUTH before TLS",
	codec.Internal:    "421 Internal error",
	codec.Unavailable: "421 The server behind this one is not available",
}

// Refuse implements codec.Session.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	switch {
	case s.phase == over, s.phase == handshake:
		return out
	case r == codec.TLSUnavailable:
		s.to(dialogue)
		return say(out, "431 TLS is not available at the moment")
	case s.relay != nil && s.relay.multi != 0, s.Outstanding() && r != codec.Unavailable:
		s.to(over)
		return out
	}
	s.to(over)
	return say(out, goodbyes[r])
}

func say(out []byte, text string) []byte { return append(append(out, text...), "\r\n"...) }
