package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"

	"starttlsd/codec"
)

// logEnd writes the one line of a connection. It names no content and no secret.
func (c *conn) logEnd() {
	log := c.lst.eng.log
	if !log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 24),
		slog.String("id", c.peer.ID.String()),
		slog.String("listener", c.lst.Name),
		slog.String("peer", c.peer.Remote.String()),
		slog.String("reason", c.why.String()),
		slog.String("layer", c.layer.String()),
		slog.Int64("lasted_ms", c.lifetime().Milliseconds()),
		slog.Int64("in", c.link.in),
		slog.Int64("out", c.link.out),
	)
	if c.layer == secure {
		s := c.tls.ConnectionState()
		attrs = append(attrs,
			slog.String("tls", tls.VersionName(s.Version)),
			slog.String("cipher", tls.CipherSuiteName(s.CipherSuite)),
			slog.String("group", s.CurveID.String()),
			slog.String("sni", hostName(s)),
			slog.Bool("resumed", s.DidResume),
			slog.Float64("handshake_ms", float64(c.tls.HandshakeTime().Microseconds())/1000))
		if name := codec.ClientName(&s); name != "" {
			attrs = append(attrs, slog.String("client", name))
		}
	}
	level := slog.LevelInfo
	if s, ok := c.session.(codec.Describer); ok {
		more, trouble := s.Describe()
		attrs = append(attrs, more...)
		if trouble {
			level = slog.LevelWarn
		}
	}
	log.LogAttrs(context.Background(), level, "connection", attrs...)
}

// hostName is the name that the client asked for, cut to what a name can be long
// (RFC 1035 §2.3.4).
func hostName(s tls.ConnectionState) string { return s.ServerName[:min(len(s.ServerName), 255)] }

// gnetLog sends gnet's own lines to slog.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(format string, args ...any) { g.put(slog.LevelDebug, format, args) }
func (g gnetLog) Infof(format string, args ...any)  { g.put(slog.LevelDebug, format, args) }
func (g gnetLog) Errorf(format string, args ...any) { g.put(slog.LevelError, format, args) }
func (g gnetLog) Fatalf(format string, args ...any) { g.put(slog.LevelError, format, args) }

// Warnf lowers the warning about an event of a connection that gnet no longer has.
// It is in the order of things: when both sides of a pair have events in one batch,
// serving the first may end or lend the pair. No other connection can have the
// descriptor before the batch is over, because they come by tasks.
func (g gnetLog) Warnf(format string, args ...any) {
	level := slog.LevelWarn
	if strings.Contains(format, "of a stale connection") {
		level = slog.LevelDebug
	}
	g.put(level, format, args)
}

func (g gnetLog) put(level slog.Level, format string, args []any) {
	if g.log.Enabled(context.Background(), level) {
		g.log.Log(context.Background(), level, "gnet: "+fmt.Sprintf(format, args...))
	}
}
