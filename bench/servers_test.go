package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"starttlsd/bench/baseline"
	"starttlsd/codec"
	"starttlsd/codec/smtp"
	"starttlsd/engine"
	"starttlsd/tlsbridge/tlstest"
)

// servers are what is measured. Each starts on loopback and is stopped with b.
var servers = []struct {
	name  string
	start func(b *testing.B, cfg *tls.Config) (addr string)
}{
	{"goroutine", startBaseline},
	{"loop", startEngine},
}

func newSession() func(*codec.Peer) codec.Session {
	cfg := &smtp.Config{Hostname: "bench.example", TLS: true, Backend: discard{},
		Limits: smtp.Limits{JunkCommands: 1 << 30, Messages: 1 << 30}}
	return func(p *codec.Peer) codec.Session { return smtp.New(cfg, p) }
}

func listen(b *testing.B) net.Listener {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return ln
}

func startBaseline(b *testing.B, cfg *tls.Config) string {
	b.Helper()
	ln := listen(b)
	s := &baseline.Server{TLS: cfg, NewSession: newSession()}
	go func() { _ = s.Serve(ln) }()
	b.Cleanup(func() {
		_ = ln.Close()
		s.Close()
	})
	return ln.Addr().String()
}

func startEngine(b *testing.B, cfg *tls.Config) string {
	b.Helper()
	ln := listen(b)
	eng, err := engine.New(engine.Config{
		Listeners: []engine.Listener{{Listener: ln, Name: "smtp", TLS: cfg, NewSession: newSession()}},
		Log:       slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = eng.Close() })
	return ln.Addr().String()
}

// client speaks SMTP and gives its first error.
type client struct {
	net.Conn
	r *bufio.Reader
}

func dial(addr string) (*client, error) {
	nc, err := new(net.Dialer).DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	// No TIME_WAIT for each of many thousand connections; the server is done by then.
	_ = nc.(*net.TCPConn).SetLinger(0)
	c := &client{nc, bufio.NewReader(nc)}
	return c, c.expect("220 ")
}

func (c *client) expect(prefix string) error {
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case err != nil:
			return err
		case !strings.HasPrefix(line, prefix[:3]):
			return fmt.Errorf("got %q, want %q", line, prefix)
		case line[3] == ' ':
			return nil
		}
	}
}

func (c *client) do(command, prefix string) error {
	if _, err := io.WriteString(c.Conn, command); err != nil {
		return err
	}
	return c.expect(prefix)
}

func (c *client) upgrade(cfg *tls.Config) error {
	if err := c.do("STARTTLS\r\n", "220 "); err != nil {
		return err
	}
	tc := tls.Client(c.Conn, cfg)
	if err := tc.Handshake(); err != nil {
		return err
	}
	c.Conn = tc
	c.r.Reset(tc)
	return c.do("EHLO client.example\r\n", "250 ")
}

func serverConfig() *tls.Config {
	cfg := tlstest.ServerConfig()
	cfg.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256}
	return cfg
}
