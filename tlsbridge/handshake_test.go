package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

func TestHandshakeAndEcho(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		l, end := startLoop(t, tlstest.ServerConfig())
		client := tls.Client(end, clientConfig(version))
		echo(t, client, "EHLO one\r\n")
		echo(t, client, strings.Repeat("x", 100_000))
		l.do(func() {
			state := l.conn.ConnectionState()
			if state.Version != version || state.ServerName != tlstest.ServerName || !state.HandshakeComplete {
				t.Errorf("state %+v", state)
			}
			if l.conn.HandshakeTime() <= 0 {
				t.Error("no handshake time")
			}
		})
		if s := l.slots.Stats().SlotCounts; s != (SlotCounts{}) {
			t.Errorf("slots not returned: %+v", s)
		}
	})
}

func TestHandshakeFedByteByByte(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		_, end := startLoop(t, tlstest.ServerConfig(), oneByte)
		client := tls.Client(trickle{end}, clientConfig(version))
		echo(t, client, "EHLO one\r\n")
		echo(t, client, strings.Repeat("x", 40_000))
	})
}

// trickle writes one byte at a time.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestHandshakeWithClientCertificate(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg := tlstest.ServerConfig()
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
		l, end := startLoop(t, cfg, oneByte)
		ccfg := clientConfig(version)
		ccfg.Certificates = []tls.Certificate{tlstest.ClientCertificate("alice")}
		echo(t, tls.Client(end, ccfg), "hello")
		l.do(func() {
			if peer := l.conn.ConnectionState().PeerCertificates; len(peer) != 1 || peer[0].Subject.CommonName != "alice" {
				t.Errorf("peer certificates %v", peer)
			}
		})
	})
}

func TestHandshakeWithHelloRetryRequest(t *testing.T) {
	cfg := tlstest.ServerConfig()
	cfg.CurvePreferences = []tls.CurveID{tls.CurveP256}
	l, end := startLoop(t, cfg, oneByte)
	ccfg := clientConfig(tls.VersionTLS13)
	ccfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
	echo(t, tls.Client(end, ccfg), "hello")
	l.do(func() {
		if !l.conn.ConnectionState().HelloRetryRequest {
			t.Error("no HelloRetryRequest was needed")
		}
	})
}

// A chain of 100 KB makes our flight longer than any buffer, and the client's too.
func TestHandshakeWithBigChains(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		pad := func(c tls.Certificate) tls.Certificate {
			for range 200 {
				c.Certificate = append(c.Certificate, c.Certificate[0])
			}
			return c
		}
		cfg := &tls.Config{Certificates: []tls.Certificate{pad(tlstest.Certificate(tlstest.ServerName))}}
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
		_, end := startLoop(t, cfg)
		ccfg := clientConfig(version)
		ccfg.Certificates = []tls.Certificate{pad(tlstest.ClientCertificate("alice"))}
		echo(t, tls.Client(end, ccfg), "hello")
	})
}

func TestClientHelloInOneByteRecords(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		_, end := startLoop(t, tlstest.ServerConfig())
		echo(t, tls.Client(&fragmenter{Conn: end}, clientConfig(version)), "hello")
	})
}

// fragmenter puts each byte of the first write, the ClientHello, into a record of its own.
type fragmenter struct {
	net.Conn
	done bool
}

func (f *fragmenter) Write(p []byte) (int, error) {
	if f.done {
		return f.Conn.Write(p)
	}
	f.done = true
	return len(p), writeAll(f.Conn, oneByteRecords(p))
}

func oneByteRecords(record []byte) []byte {
	var out []byte
	for _, b := range record[recordHeader:] {
		out = append(append(out, record[:3]...), 0, 1, b)
	}
	return out
}

func writeAll(w io.Writer, p []byte) error { _, err := w.Write(p); return err }

// gatherer holds writes back until release, so that they arrive in one segment.
type gatherer struct {
	net.Conn
	holding bool
	held    bytes.Buffer
}

func (g *gatherer) Write(p []byte) (int, error) {
	if g.holding {
		return g.held.Write(p)
	}
	return g.Conn.Write(p)
}

func (g *gatherer) release() error {
	g.holding = false
	return writeAll(g.Conn, g.held.Bytes())
}

// afterHello starts holding when the server's flight is read: what follows is
// the client's Finished.
type afterHello struct{ *gatherer }

func (a afterHello) Read(p []byte) (int, error) {
	n, err := a.Conn.Read(p)
	a.holding = true
	return n, err
}

func TestCommandBehindFinishedIsServedWithoutFurtherInput(t *testing.T) {
	_, end := startLoop(t, tlstest.ServerConfig())
	g := &gatherer{Conn: end}
	client := tls.Client(afterHello{g}, clientConfig(tls.VersionTLS13))
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(client, "EHLO one\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	expect(t, tls.Client(end, nil).NetConn(), "\x17") // some application data came back
}

func TestTwoRecordsInOneSegmentAreBothServed(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		_, end := startLoop(t, tlstest.ServerConfig())
		g := &gatherer{Conn: end}
		client := tls.Client(g, clientConfig(version))
		echo(t, client, "first")
		g.holding = true
		for _, s := range []string{"NOOP\r\n", "RSET\r\n"} {
			if _, err := io.WriteString(client, s); err != nil {
				t.Fatal(err)
			}
		}
		if err := g.release(); err != nil {
			t.Fatal(err)
		}
		expect(t, client, "NOOP\r\nRSET\r\n")
	})
}

func TestBulkDataBehindFinishedIsNotOverBudget(t *testing.T) {
	_, end := startLoop(t, tlstest.ServerConfig())
	g := &gatherer{Conn: end}
	client := tls.Client(afterHello{g}, clientConfig(tls.VersionTLS13))
	message := strings.Repeat("0123456789abcdef", 16<<10) // 256 KiB
	if _, err := io.WriteString(client, message); err != nil {
		t.Fatal(err)
	}
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	expect(t, client, message)
}

func TestEarlyDataIsCountedUntilItIsRead(t *testing.T) {
	r := newRig(t, tlstest.ServerConfig(), NewSlots(SlotLimits{}), Options{})
	g := &gatherer{Conn: r.client}
	client := tls.Client(afterHello{g}, clientConfig(tls.VersionTLS13))
	done := make(chan error)
	go func() { _, err := io.WriteString(client, "first command"); done <- err }()
	if err := r.pumpWhile(done); err != nil {
		t.Fatal(err)
	}
	if err := g.release(); err != nil {
		t.Fatal(err)
	}
	if err := r.pump(r.over); err != nil {
		t.Fatal(err)
	}
	if n := r.conn.Buffered(); n != recordHeader+len("first command")+1+16 {
		t.Errorf("%d bytes buffered", n)
	}
	expect(t, r.conn, "first command")
	if n := r.conn.Buffered(); n != 0 {
		t.Errorf("%d bytes buffered behind the last", n)
	}
}

func TestTicketResumption(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg := tlstest.ServerConfig()
		ccfg := clientConfig(version)
		ccfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 3 {
			l, end := startLoop(t, cfg)
			client := tls.Client(end, ccfg)
			echo(t, client, "hello") // in TLS 1.3 the ticket is read with it
			l.do(func() {
				if got := l.conn.ConnectionState().DidResume; got != (i > 0) {
					t.Errorf("connection %d: resumed %v", i, got)
				}
			})
		}
	})
}

func TestCloseNotifyBothWays(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		l, end := startLoop(t, tlstest.ServerConfig())
		client := tls.Client(end, clientConfig(version))
		echo(t, client, "QUIT\r\n")
		if err := client.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := client.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v; want the server's close_notify", n, err)
		}
		if err := l.wait(); err != io.EOF {
			t.Errorf("server ended with %v, want io.EOF", err)
		}
		if n, err := l.conn.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("read %d, %v after the end", n, err)
		}
	})
}

// RFC 8446 §6.1: without a close_notify nobody knows that the data is whole.
func TestTruncationIsNoCleanEnd(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		l, end := startLoop(t, tlstest.ServerConfig())
		echo(t, tls.Client(end, clientConfig(version)), "DATA\r\n")
		end.Close()
		if err := l.wait(); err != io.ErrUnexpectedEOF {
			t.Errorf("server ended with %v, want io.ErrUnexpectedEOF", err)
		}
	})
}

// Finished, a command, close_notify and FIN arrive at once: nothing of it is lost.
func TestInputBeforeTheEndOfTheStreamIsServed(t *testing.T) {
	var got []byte
	l, end := startLoop(t, tlstest.ServerConfig(), func(l *loop, _ *loopLink, _ *Options) {
		l.serve = func(_ *Conn, p []byte) error { got = append(got, p...); return nil }
	})
	g := &gatherer{Conn: end}
	client := tls.Client(afterHello{g}, clientConfig(tls.VersionTLS13))
	if _, err := io.WriteString(client, "last words"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(client.CloseWrite(), g.release()); err != nil {
		t.Fatal(err)
	}
	end.tx.close()
	if err := l.wait(); err != io.EOF || string(got) != "last words" {
		t.Errorf("got %q, %v", got, err)
	}
}
