package smtp

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"

	"starttlsd/codec"
)

// Session is the server side of SMTP on one connection. It implements
// codec.Session, whose contract says who calls what, and keeps an idle
// connection small: all that belongs to a message is in tx.
type Session struct {
	cfg     *Config
	peer    *codec.Peer
	helo    string       // name given with EHLO or HELO
	tls     *TLSInfo     // nil in plaintext
	tx      *transaction // nil outside of one
	answer  *reply       // why the content that is arriving is refused, nil while it is not
	left    int64        // octets still to come of the chunk
	trouble *trouble     // nil while there is none
	line    codec.Line

	commands uint32
	messages uint32 // accepted
	begun    uint32 // transactions
	conduct

	phase    phase
	back     phase // to be in again after a refused chunk or STARTTLS
	extended bool  // EHLO, not HELO
	known    bool  // a command was recognized, in this layer
	last     bool  // the chunk is the last
	lent     bool  // between Lend and Return
}

// trouble is what the log line says of a session in which not all went well.
type trouble struct {
	fault   error  // the backend's last
	refused *reply // the last refusal
}

func (s *Session) inTrouble() *trouble {
	if s.trouble == nil {
		s.trouble = new(trouble)
	}
	return s.trouble
}

var (
	_ codec.Session   = (*Session)(nil)
	_ codec.Describer = (*Session)(nil)
)

// New makes the session of a new connection. It keeps peer.
func New(cfg *Config, peer *codec.Peer) *Session { return &Session{cfg: cfg, peer: peer} }

// limit is a configured limit or its default.
func limit(configured, standard int) uint32 { return uint32(cmp.Or(configured, standard)) }

// Greet implements codec.Session.
func (s *Session) Greet(out []byte) []byte {
	s.to(fresh)
	return codec.AppendReply(out, 220, "", s.cfg.Hostname+" ESMTP")
}

// Step implements codec.Session.
func (s *Session) Step(in, out []byte) (n int, _ []byte, action codec.Action) {
	switch s.phase {
	case inData:
		n, out, action = s.stepData(in, out)
	case inChunk, inRefused:
		n, out, action = s.stepChunk(in, out)
	case handshake, over:
		return len(in), out, codec.Close // nothing in plaintext after the go-ahead
	default:
		n, out, action = s.stepCommand(in, out)
	}
	switch {
	case action == codec.Lend:
		s.lent = true
	case s.lent && s.waited(action):
		s.lent = false
		action = codec.Return
	}
	return n, out, action
}

// waited reports whether there is nothing more that may wait. Between chunks there
// is: the backend holds a message open, and a lend for each would cost more than
// many a chunk.
func (s *Session) waited(action codec.Action) bool {
	switch action {
	case codec.Continue:
		return s.phase != chunks && s.phase != inChunk
	case codec.NeedMore:
		return dialogue.has(s.phase) && s.phase != chunks
	default:
		return false
	}
}

// Refuse implements codec.Session. In the middle of a message, where no reply
// could stand, 421 is the one reply to that message, which is discarded.
func (s *Session) Refuse(r codec.Refusal, out []byte) []byte {
	switch s.phase {
	case handshake, over:
		return out
	case asked:
		switch r {
		case codec.TLSUnavailable:
			s.to(s.back)
			out, _ = say(out, errTLSNotNow)
			return out
		case codec.Injected:
			out, _ = s.close(out, errInjected)
			return out
		}
	}
	if words := goodbyes[r]; words != nil {
		out, _ = s.close(out, words)
	}
	return out
}

// GoAhead implements codec.Session.
func (s *Session) GoAhead(out []byte) []byte {
	s.to(handshake)
	out, _ = say(out, replyGoAhead)
	return out
}

// Secured implements codec.Session: the state is that after the greeting, with
// nothing known of the client but how much it has misbehaved (RFC 3207 §4.2).
func (s *Session) Secured(state *tls.ConnectionState, out []byte) []byte {
	s.tls = &TLSInfo{
		Version:    state.Version,
		Cipher:     state.CipherSuite,
		Group:      state.CurveID,
		ServerName: state.ServerName,
		Client:     codec.ClientName(state),
	}
	s.helo, s.extended, s.known = "", false, false
	s.line.Reset()
	if s.phase == handshake {
		s.to(fresh)
	}
	return out
}

// End implements codec.Session.
func (s *Session) End() func() {
	if !s.open() {
		return nil
	}
	return s.tx.msg.Abort
}

// Describe implements codec.Describer. It is trouble when a message was not taken
// for a reason of ours.
func (s *Session) Describe() (attrs []slog.Attr, trouble bool) {
	attrs = []slog.Attr{
		slog.String("helo", s.helo),
		slog.Int("commands", int(s.commands)),
		slog.Int("messages", int(s.messages)),
	}
	if s.bad > 0 {
		attrs = append(attrs, slog.Int("bad_commands", int(s.bad)))
	}
	t := s.trouble
	if t == nil {
		return attrs, false
	}
	if t.fault != nil {
		attrs = append(attrs, slog.Any("backend_err", t.fault))
	}
	if r := t.refused; r != nil {
		attrs = append(attrs, slog.String("last_refusal", fmt.Sprintf("%d %s %s", r.code, r.status, r.text)))
	}
	return attrs, t.fault != nil
}
