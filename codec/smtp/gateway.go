package smtp

import (
	"cmp"
	"crypto/tls"
	"log/slog"

	"starttlsd/codec"
)

// GatewayConfig is what all gateway sessions of a listener share. It is read-only
// once the first Gateway is made of it. A zero limit means its default.
type GatewayConfig struct {
	Hostname   string // in the greeting and in our replies, and what we call ourselves to the backend
	TLS        bool   // STARTTLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS bool   // in clear only NOOP, EHLO, STARTTLS and QUIT; not for a public MX (RFC 3207 §4)
	LMTP       bool   // LMTP on both sides (RFC 2033)
	XCLIENT    bool   // tell the backend of the client when it offers XCLIENT; it goes on without when not
	Limits     Limits // of one session; Recipients and Messages are the backend's to limit
}

// Gateway is the session of a client whose mail a server behind us takes. It
// implements codec.Relayed, whose contract says who calls what, and keeps an idle
// connection small: all that belongs to the backend is in link.
type Gateway struct {
	cfg     *GatewayConfig
	helo    string // name given with EHLO or HELO
	link    *link  // nil until the backend is needed
	refused *reply // the last refusal of ours
	answer  *reply // to the chunk that is being dropped
	left    int64  // octets still to come of the chunk, or of what is dropped at most
	line    codec.Line

	conduct
	commands uint32
	messages uint32 // accepted by the backend

	stage   stage
	hello   hello
	secured bool
	known   bool // a command was recognized, in this layer
}

// hello is how a client has greeted.
type hello uint8

const (
	noHello  hello = iota
	basic          // HELO
	extended       // EHLO or LHLO
)

var (
	_ codec.Relayed   = (*Gateway)(nil)
	_ codec.Describer = (*Gateway)(nil)
)

// NewGateway makes the session of a new connection. What the backend is told of
// the client comes with Introduce.
func NewGateway(cfg *GatewayConfig, _ *codec.Peer) *Gateway { return &Gateway{cfg: cfg} }

// Greet implements codec.Session.
func (g *Gateway) Greet(out []byte) []byte {
	g.to(talking)
	name := " ESMTP"
	if g.cfg.LMTP {
		name = " LMTP"
	}
	return codec.AppendReply(out, 220, "", g.cfg.Hostname+name)
}

// Step implements codec.Session: a client that does not get past TLS and policy
// costs the backend nothing.
func (g *Gateway) Step(in, out []byte) (int, []byte, codec.Action) {
	switch g.stage {
	case droppingChunk:
		n, out, action := g.dropChunk(in, out)
		if action == codec.Content {
			action = codec.NeedMore
		}
		return n, out, action
	case shaking, done:
		return len(in), out, codec.Close // nothing in plaintext after the go-ahead
	}
	before := g.line
	n, f := g.read(in)
	switch {
	case f.more:
		return n, out, codec.NeedMore
	case f.why == nil && g.needsBackend(f.c):
		g.line = before // Forward reads it again
		g.link = newLink(&f)
		return 0, out, codec.Dial
	}
	g.count(&f)
	out, action := g.ours(&f, out)
	if action == codec.Content {
		action = codec.Continue
	}
	return n, out, action
}

// needsBackend reports whether c cannot be answered by ourselves. Under TLS what
// the client is offered is the backend's own list.
func (g *Gateway) needsBackend(c *gatewayCommand) bool {
	return c.own == nil || g.secured && c.kind.greets()
}

// ours answers a frame that is not for the backend: it is refused, or has an answer
// of our own.
func (g *Gateway) ours(f *frame, out []byte) ([]byte, codec.Action) {
	switch {
	case f.why == nil:
		return f.c.own(g, f.arg, out)
	case f.closes:
		return g.close(out, f.why)
	case f.c != nil && f.c.flags&hasChunk != 0:
		g.to(droppingChunk)
		g.left, g.answer = f.size, f.why
		_, out, action := g.dropChunk(nil, out)
		return out, action
	default:
		return g.refuse(out, f.why)
	}
}

// GoAhead implements codec.Session. The backend of the plaintext session, if there
// was one, has been left.
func (g *Gateway) GoAhead(out []byte) []byte {
	g.to(shaking)
	g.link = nil
	out, _ = say(out, replyGoAhead)
	return out
}

// Secured implements codec.Session: the state is that after the greeting, with
// nothing known of the client but how much it has misbehaved (RFC 3207 §4.2).
func (g *Gateway) Secured(_ *tls.ConnectionState, out []byte) []byte {
	*g = Gateway{cfg: g.cfg, refused: g.refused, conduct: g.conduct, commands: g.commands,
		messages: g.messages, stage: g.stage, secured: true}
	if g.stage == shaking {
		g.to(talking)
	}
	return out
}

// Refuse implements codec.Session. In the middle of a message 421 is the one reply
// to it; in the middle of a reply there are no words.
func (g *Gateway) Refuse(r codec.Refusal, out []byte) []byte {
	switch g.stage {
	case shaking, done:
		return out
	case asking:
		switch r {
		case codec.TLSUnavailable:
			g.to(talking)
			out, _ = g.refuse(out, errTLSNotNow)
			return out
		case codec.Injected:
			out, _ = g.close(out, errInjected)
			return out
		}
	}
	words := goodbyes[r]
	if g.link != nil && r == codec.Unavailable {
		words = cmp.Or(g.link.rejection, words)
	}
	switch {
	case words == nil:
	case g.link != nil && !g.link.mayStand(r, g.stage == passingChunk):
		g.to(done)
	default:
		out, _ = g.close(out, words)
	}
	return out
}

// End implements codec.Session.
func (g *Gateway) End() func() { return nil }

// Describe implements codec.Describer. It is trouble when the backend was not as
// it should be.
func (g *Gateway) Describe() (attrs []slog.Attr, trouble bool) {
	attrs = []slog.Attr{
		slog.String("helo", g.helo),
		slog.Int("commands", int(g.commands)),
		slog.Int("messages", int(g.messages)),
	}
	if g.bad > 0 {
		attrs = append(attrs, slog.Int("bad_commands", int(g.bad)))
	}
	if r := g.refused; r != nil {
		attrs = append(attrs, slog.String("last_refusal", r.String()))
	}
	if l := g.link; l != nil {
		if l.noXCLIENT {
			attrs = append(attrs, slog.String("xclient", "not offered by the backend"))
		}
		if l.fault != "" {
			attrs = append(attrs, slog.String("backend_err", l.fault))
			trouble = true
		}
	}
	return attrs, trouble
}

// refuse answers a command that was not carried out.
func (g *Gateway) refuse(out []byte, r *reply) ([]byte, codec.Action) {
	g.refused = r
	if r = g.toll(r, &g.cfg.Limits); r.code == 421 {
		return g.close(out, r)
	}
	return say(out, r)
}

// close answers with the last reply.
func (g *Gateway) close(out []byte, r *reply) ([]byte, codec.Action) {
	g.refused = r
	out = farewell(out, r, g.cfg.Hostname, g.stage == quiet)
	g.to(done)
	return out, codec.Close
}
