package tlsbridge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// clientEnd returns a Conn that is the client of a server of crypto/tls, its end of
// the wire, and that server, whose handshake is done.
func clientEnd(t *testing.T, clientCfg, serverCfg *tls.Config) (*Conn, *wireEnd, *tls.Conn) {
	t.Helper()
	ours, theirs := newWire()
	server := tls.Server(theirs, serverCfg)
	done := make(chan error)
	go func() { done <- server.Handshake() }()
	c, err := Client(t.Context(), ours, clientCfg)
	if serverErr := <-done; err != nil || serverErr != nil {
		t.Fatal(err, serverErr)
	}
	t.Cleanup(func() { theirs.Close() })
	return c, ours, server
}

// slowly is a link that would block before every five octets.
type slowly struct {
	end *wireEnd
	dry bool
}

func (l *slowly) Read(p []byte) (int, error) {
	if l.dry = !l.dry; l.dry {
		return 0, ErrWouldBlock
	}
	return l.end.rx.read(p[:min(len(p), 5)], false)
}

func (l *slowly) Write(p []byte) (int, error) { return l.end.tx.write(p) }

// untilRead reads through ErrWouldBlock, as an event loop does in the end.
type untilRead struct{ c *Conn }

func (u untilRead) Read(p []byte) (int, error) {
	for {
		n, err := u.c.Read(p)
		if n > 0 || err != ErrWouldBlock {
			return n, err
		}
	}
}

func TestClientIsOverABlockingLinkAndThenOverOneThatDoesNotWait(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		c, end, server := clientEnd(t, clientConfig(version), tlstest.ServerConfig())
		if c.Handshaking() || c.ConnectionState().Version != version || len(c.ConnectionState().VerifiedChains) == 0 {
			t.Errorf("%+v", c.ConnectionState())
		}
		go func() { _, _ = io.Copy(server, server) }()
		echo(t, c, "over a blocking link")
		c.SetLink(&slowly{end: end})
		if _, err := c.Read(make([]byte, 10)); err != ErrWouldBlock {
			t.Error(err)
		}
		for range 20 {
			message := string(bytes.Repeat([]byte("message "), 200))
			if _, err := io.WriteString(c, message); err != nil {
				t.Fatal(err)
			}
			expect(t, untilRead{c}, message)
		}
		c.SetLink(end)
		echo(t, c, "and over a blocking one again")
	})
}

// The tickets of TLS 1.3 come behind the handshake, and are first read on the loop.
func TestTicketsAreTakenInPieces(t *testing.T) {
	cfg := clientConfig(tls.VersionTLS13)
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	serverCfg := tlstest.ServerConfig()
	c, end, server := clientEnd(t, cfg, serverCfg)
	c.SetLink(&slowly{end: end})
	for range 1000 {
		if n, err := c.Read(make([]byte, 10)); n != 0 || err != ErrWouldBlock {
			t.Fatal(n, err)
		}
	}
	if err := writeAll(server, []byte("behind them")); err != nil {
		t.Fatal(err)
	}
	expect(t, untilRead{c}, "behind them")
	if again, _, _ := clientEnd(t, cfg, serverCfg); !again.ConnectionState().DidResume {
		t.Error("the ticket was lost")
	}
}

func TestDataDirectlyBehindTheServersFinished(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		ours, theirs := newWire()
		server := tls.Server(theirs, tlstest.ServerConfig())
		done := make(chan error)
		go func() { done <- writeAll(server, []byte("220 hello")) }() // and the handshake before it
		c, err := Client(t.Context(), ours, clientConfig(version))
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		c.SetLink(&loopLink{end: ours})
		expect(t, c, "220 hello")
		if _, err := c.Read(make([]byte, 10)); err != ErrWouldBlock {
			t.Error(err)
		}
		theirs.Close()
	})
}

func TestClientAnswersAKeyUpdate(t *testing.T) {
	var keys bytes.Buffer
	cfg := clientConfig(tls.VersionTLS13)
	tlstest.SealerConfig(cfg, &keys)
	serverCfg := tlstest.ServerConfig()
	serverCfg.SessionTicketsDisabled = true // a ticket would be the server's first record
	c, end, server := clientEnd(t, cfg, serverCfg)
	c.SetLink(&slowly{end: end})
	s := tlstest.NewServerSealer(t, c.ConnectionState(), keys.String())
	for _, message := range []string{"one", "two"} {
		if err := writeAll(server.NetConn(), append(s.KeyUpdate(), s.Seal(tlstest.TypeApplication, []byte(message))...)); err != nil {
			t.Fatal(err)
		}
		expect(t, untilRead{c}, message)
		if err := writeAll(c, []byte(message)); err != nil {
			t.Fatal(err)
		}
		expect(t, server, message) // under the next key
	}
}

func TestCloseNotifyBetweenClientAndServer(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		c, end, server := clientEnd(t, clientConfig(version), tlstest.ServerConfig())
		c.SetLink(&loopLink{end: end})
		if err := writeAll(server, []byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := server.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); string(got) != "last words" || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		if err := writeAll(c, []byte("ours")); err != nil { // RFC 8446 §6.1: the other direction goes on
			t.Fatal(err)
		}
		if err := c.CloseNotify(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(server); string(got) != "ours" || err != nil {
			t.Errorf("server read %q, %v", got, err)
		}
	})
}

func TestEndWithoutCloseNotifyIsNoEnd(t *testing.T) {
	c, end, server := clientEnd(t, clientConfig(tls.VersionTLS13), tlstest.ServerConfig())
	c.SetLink(&loopLink{end: end})
	server.NetConn().Close()
	if _, err := c.Read(make([]byte, 10)); err != io.ErrUnexpectedEOF {
		t.Error(err)
	}
}

func TestServerThatIsNotTrustedIsToldSo(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		for name, cfg := range map[string]*tls.Config{
			"authority": {ServerName: tlstest.ServerName, MaxVersion: version},
			"name":      {ServerName: "other.example", RootCAs: tlstest.Roots(), MaxVersion: version},
		} {
			ours, theirs := newWire()
			done := make(chan error)
			go func() { done <- tls.Server(theirs, tlstest.ServerConfig()).Handshake() }()
			c, err := Client(t.Context(), ours, cfg)
			_, authority := errors.AsType[x509.UnknownAuthorityError](err)
			_, wrongName := errors.AsType[x509.HostnameError](err)
			if c != nil || authority != (name == "authority") || wrongName != (name == "name") {
				t.Errorf("%s: %v", name, err)
			}
			if _, handshake := errors.AsType[*HandshakeError](err); handshake {
				t.Errorf("%s: %v is for servers", name, err)
			}
			if err := <-done; err == nil || err.Error() != "remote error: tls: bad certificate" {
				t.Errorf("%s: the server was told %v", name, err)
			}
		}
	})
}

func TestDeadlineOfTheLinkEndsTheHandshake(t *testing.T) {
	ours, _ := newWire()
	_ = ours.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if c, err := Client(t.Context(), ours, clientConfig(tls.VersionTLS13)); c != nil || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(c, err)
	}
}

func TestNoHandshakeIsBegunWhenTheContextIsDone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ours, theirs := newWire()
	if c, err := Client(ctx, ours, clientConfig(tls.VersionTLS13)); c != nil || err != context.Canceled {
		t.Error(c, err)
	}
	if !theirs.rx.empty() {
		t.Error("a ClientHello was sent")
	}
}

func TestServerWithoutTLS(t *testing.T) {
	ours, theirs := newWire()
	if err := writeAll(theirs, []byte("220 hello\r\n")); err != nil {
		t.Fatal(err)
	}
	_, err := Client(t.Context(), ours, clientConfig(tls.VersionTLS13))
	if _, ok := errors.AsType[tls.RecordHeaderError](err); !ok {
		t.Error(err)
	}
}
