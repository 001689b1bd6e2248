package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"
)

// logEnd writes the one line of a connection. It names no content and no secret.
func (c *conn) logEnd() {
	log := c.lst.eng.log
	if !log.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String("id", c.peer.ID),
		slog.String("listener", c.lst.Name),
		slog.String("peer", c.peer.Remote.String()),
		slog.String("reason", c.why.String()),
		slog.String("layer", c.layer.String()),
		slog.Duration("lasted", c.lifetime().Round(time.Millisecond)),
		slog.Int64("in", c.link.in),
		slog.Int64("out", c.link.out),
	}
	if c.layer == secure {
		s := c.tls.ConnectionState()
		attrs = append(attrs,
			slog.String("tls", tls.VersionName(s.Version)),
			slog.String("cipher", tls.CipherSuiteName(s.CipherSuite)),
			slog.String("group", s.CurveID.String()),
			slog.String("sni", s.ServerName[:min(len(s.ServerName), 255)]), // RFC 1035 §2.3.4
			slog.Bool("resumed", s.DidResume),
			slog.Duration("handshake", c.tls.HandshakeTime().Round(time.Microsecond)))
	}
	if s, ok := c.session.(interface{ LogAttrs() []slog.Attr }); ok {
		attrs = append(attrs, s.LogAttrs()...)
	}
	log.LogAttrs(context.Background(), slog.LevelInfo, "connection", attrs...)
}

// gnetLog sends gnet's own lines to slog.
type gnetLog struct{ log *slog.Logger }

func (g gnetLog) Debugf(format string, args ...any) { g.put(slog.LevelDebug, format, args) }
func (g gnetLog) Infof(format string, args ...any)  { g.put(slog.LevelDebug, format, args) }
func (g gnetLog) Warnf(format string, args ...any)  { g.put(slog.LevelWarn, format, args) }
func (g gnetLog) Errorf(format string, args ...any) { g.put(slog.LevelError, format, args) }
func (g gnetLog) Fatalf(format string, args ...any) { g.put(slog.LevelError, format, args) }

func (g gnetLog) put(level slog.Level, format string, args []any) {
	if g.log.Enabled(context.Background(), level) {
		g.log.Log(context.Background(), level, "gnet: "+fmt.Sprintf(format, args...))
	}
}
