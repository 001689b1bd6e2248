package smtp

import (
	"crypto/tls"
	"fmt"
	"log/slog"

	"starttlsd/codec"
)

// GatewayConfig is what all sessions of a listener share whose mail goes to a server
// behind it. It is read-only once the first Gateway is made of it.
type GatewayConfig struct {
	Hostname   string // in the greeting and in replies of our own
	TLS        bool   // STARTTLS can be served: there is a certificate, and TLS is not implicit
	RequireTLS bool   // in clear only NOOP, EHLO, STARTTLS and QUIT; not for a public MX (RFC 3207 §4)
	LMTP       bool   // RFC 2033
	XCLIENT    bool   // tell the backend who the client is, if it offers that (Postfix, Dovecot)
	Limits     Limits // Line, BadCommands and JunkCommands
}

// Gateway is the server side of SMTP, or LMTP, on one connection with a server
// behind it. It implements codec.Relayed, whose contract says who calls what.
//
// The dialogue stays framed to its end, so that no STARTTLS, XCLIENT or command that
// is not known here ever gets to the backend, and every list of extensions is
// filtered. Messages are passed on as they come.
type Gateway struct {
	cfg     *GatewayConfig
	peer    *codec.Peer
	helo    string // name given with EHLO, HELO or LHLO
	relay   *relay // nil until there is a backend
	refused *reply // the last refusal of ours
	line    codec.Line

	commands uint32
	messages uint32 // that the backend has taken
	bad      uint32 // see Limits
	junk     uint32

	phase    gatewayPhase
	back     gatewayPhase // to be in again after a refused STARTTLS
	extended bool         // EHLO, not HELO
	known    bool         // a command was recognized, in this layer
	secured  bool
}

// gatewayPhase is what the session expects next of the client.
type gatewayPhase uint8

const (
	gSilent    gatewayPhase = iota // nothing was said yet
	gFresh                         // no EHLO, HELO or LHLO, or none since TLS
	gReady                         // commands
	gWaiting                       // nothing: what comes depends on a reply of the backend's
	gAnswer                        // a SASL response
	gContent                       // the content behind DATA
	gChunk                         // the content behind BDAT
	gSwallow                       // content that is refused
	gAsked                         // nothing: STARTTLS was reported to the engine
	gHandshake                     // nothing: the go-ahead was given
	gOver                          // nothing: the last reply was said
	gatewayPhaseCount
)

func (p gatewayPhase) String() string {
	return [gatewayPhaseCount]string{"silent", "fresh", "ready", "waiting", "answer", "content", "chunk",
		"swallow", "asked", "handshake", "over"}[p]
}

// gatewaySuccessors says which phases may follow one. Every phase may be followed by over.
var gatewaySuccessors = [gatewayPhaseCount][]gatewayPhase{
	gSilent:    {gFresh},
	gFresh:     {gReady, gAsked},
	gReady:     {gWaiting, gChunk, gAsked},
	gWaiting:   {gReady, gAnswer, gContent},
	gAnswer:    {gWaiting, gReady},
	gContent:   {gReady, gSwallow},
	gChunk:     {gReady},
	gAsked:     {gFresh, gReady, gHandshake}, // back when TLS is unavailable
	gHandshake: {gFresh},
}

// to is the one place where the phase changes.
func (g *Gateway) to(next gatewayPhase) {
	if next == g.phase || next == gOver {
		g.phase = next
		return
	}
	for _, p := range gatewaySuccessors[g.phase] {
		if p == next {
			g.phase = next
			return
		}
	}
	panic(fmt.Sprintf("smtp: gateway phase %v after %v", next, g.phase))
}

var (
	_ codec.Relayed   = (*Gateway)(nil)
	_ codec.Describer = (*Gateway)(nil)
)

// NewGateway makes the session of a new connection. It keeps both.
func NewGateway(cfg *GatewayConfig, peer *codec.Peer) *Gateway {
	return &Gateway{cfg: cfg, peer: peer}
}

// Greet implements codec.Session.
func (g *Gateway) Greet(out []byte) []byte {
	g.to(gFresh)
	protocol := " ESMTP"
	if g.cfg.LMTP {
		protocol = " LMTP"
	}
	return codec.AppendReply(out, 220, "", g.cfg.Hostname+protocol)
}

// GoAhead implements codec.Session.
func (g *Gateway) GoAhead(out []byte) []byte {
	g.to(gHandshake)
	out, _ = say(out, replyGoAhead)
	return out
}

// Secured implements codec.Session: the state is that after the greeting, with
// nothing known of the client but how much it has misbehaved (RFC 3207 §4.2).
func (g *Gateway) Secured(_ *tls.ConnectionState, out []byte) []byte {
	g.secured, g.relay = true, nil
	g.helo, g.extended, g.known = "", false, false
	g.line.Reset()
	if g.phase == gHandshake {
		g.to(gFresh)
	}
	return out
}

// Outstanding implements codec.Relayed.
func (g *Gateway) Outstanding() bool { return g.relay != nil && g.relay.asked.Len() > 0 }

// End implements codec.Session.
func (g *Gateway) End() func() { return nil }

// Refuse implements codec.Session. In the middle of a message 421 is the one reply to
// it; where a reply has begun, or another one is due first, nothing is said.
func (g *Gateway) Refuse(r codec.Refusal, out []byte) []byte {
	switch {
	case g.phase == gHandshake, g.phase == gOver:
		return out
	case r == codec.TLSUnavailable:
		g.to(g.back)
		out, _ = say(out, errTLSNotNow)
		return out
	case r == codec.Injected:
		out, _ = g.close(out, errInjected)
		return out
	case g.relay != nil && g.relay.midway, g.Outstanding() && r != codec.Unavailable:
		g.to(gOver)
		return out
	}
	out, _ = g.close(out, goodbyes[r])
	return out
}

// Describe implements codec.Describer.
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
	return attrs, false
}

// refuse answers a command that was not carried out, and counts it as Session.refuse does.
func (g *Gateway) refuse(out []byte, r *reply) ([]byte, codec.Action) {
	g.refused = r
	switch r.code {
	case 421:
		return g.close(out, r)
	case 500, 501, 502:
		if g.bad++; g.bad >= limit(g.cfg.Limits.BadCommands, defaultBad) {
			return g.close(out, closeErrors)
		}
	default:
		if g.junk++; g.junk >= limit(g.cfg.Limits.JunkCommands, defaultJunk) {
			return g.close(out, closeJunk)
		}
	}
	return say(out, r)
}

// close answers with the last reply. A 421 names the host (RFC 5321 §4.2.3).
func (g *Gateway) close(out []byte, r *reply) ([]byte, codec.Action) {
	g.refused = r
	text, status := r.text, r.status
	if r.code == 421 {
		text = g.cfg.Hostname + " " + text
	}
	if g.phase == gSilent {
		status = "" // in place of the greeting (RFC 2034 §4)
	}
	g.to(gOver)
	return codec.AppendReply(out, r.code, status, text), codec.Close
}
