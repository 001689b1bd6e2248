package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// gateway is a starttlsd in front of a stub for every dialect.
type gateway struct {
	*enginetest.Process
	starttls, implicit map[*dialect]string // addresses
	stubs              map[*dialect]*stub
}

// startGateway starts one; more is added to the configuration, and to each listener.
func startGateway(t *testing.T, more, perListener string) *gateway {
	t.Helper()
	g := &gateway{starttls: map[*dialect]string{}, implicit: map[*dialect]string{}, stubs: map[*dialect]*stub{}}
	yaml := "hostname: front.example\nlisteners:\n"
	for _, d := range dialects {
		g.stubs[d] = startStub(t, d)
		perListener := perListener
		if d.name == "ftp" { // which has words for that
			perListener = strings.ReplaceAll(perListener, "require_tls: true", "require_tls: data")
		}
		for _, mode := range []string{"starttls", "implicit"} {
			yaml += fmt.Sprintf("  - {address: '127.0.0.1:0', protocol: %s, tls: %s, backend: 'tcp://%s'%s}\n",
				d.name, mode, g.stubs[d].addr, perListener)
		}
	}
	g.Process = enginetest.Start(t, enginetest.Config{YAML: yaml + more})
	for i, d := range dialects {
		g.starttls[d], g.implicit[d] = g.Addrs[2*i], g.Addrs[2*i+1]
	}
	return g
}

// everyDialect runs a test for each, under its name.
func everyDialect(t *testing.T, test func(t *testing.T, d *dialect)) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) { test(t, d) })
	}
}

var versions = []uint16{tls.VersionTLS12, tls.VersionTLS13}

func TestGatewaySessions(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		for _, version := range versions {
			for _, implicit := range []bool{false, true} {
				for _, trickled := range []bool{false, true} {
					addr := g.starttls[d]
					if implicit {
						addr = g.implicit[d]
					}
					c := talk(t, d, addr)
					if trickled {
						c.Conn = trickle{c.Conn}
					}
					if implicit {
						c.handshake(version).greeted()
					} else {
						c.upgrade(version)
					}
					for _, a := range d.open {
						c.ask(a)
					}
					c.ask(d.quit)
					if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil { // close_notify, not a bare end
						t.Errorf("behind the goodbye: %q, %v", rest, err)
					}
				}
			}
		}
	})
}

// trickle sends every byte by itself.
type trickle struct{ net.Conn }

func (c trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// F1: one segment, no go-ahead, the protocol's error, and the end.
func TestGatewayPlaintextBehindSTARTTLS(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.starttls[d]).greeted()
		c.send(d.starttls.send + d.noop.send)
		c.until(d.injected)
		if rest, err := io.ReadAll(c.r); len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("said besides: %q, %v", rest, err)
		}
		if got, n := g.stubs[d].received(); n > 0 {
			t.Errorf("the backend was sent %q", got)
		}
	})
}

// F2: the same, split at every byte, with pauses: nothing said in clear is ever
// answered behind the go-ahead.
func TestGatewayInjectionSplitInTime(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		all := d.starttls.send + d.noop.send
		var wg sync.WaitGroup
		for at := 1; at < len(all); at++ {
			for _, pause := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond} {
				wg.Go(func() {
					c := talk(t, d, g.starttls[d]).greeted()
					_, _ = io.WriteString(c, all[:at])
					time.Sleep(pause)
					_, _ = io.WriteString(c, all[at:])
					if cw, ok := c.Conn.(*net.TCPConn); ok {
						_ = cw.CloseWrite()
					}
					said, _ := io.ReadAll(c.r)
					if i := strings.IndexByte(string(said), '\n'); i >= 0 && strings.HasPrefix(string(said[i+1:]), "\x15") {
						said = said[:i+1] // TLS's alert
					}
					if n := strings.Count(string(said), "\n"); n > 1 {
						t.Errorf("split at %d, %v: %q", at, pause, said)
					}
				})
			}
		}
		wg.Wait()
		if got, n := g.stubs[d].received(); n > 0 {
			t.Errorf("the backend was sent %q", got)
		}
	})
}

// F12, F15: the right code, and the session goes on.
func TestGatewaySTARTTLSTwiceAndWithArguments(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.starttls[d]).greeted()
		c.ask(d.args)
		c.ask(d.starttls)
		c.handshake(tls.VersionTLS13)
		if d.name == "sieve" {
			c.until(d.final)
		}
		c.ask(d.twice)
		c.ask(d.hello)
		c.ask(d.twice)
		c.ask(d.quit)
	})
}

// F13, F14: under TLS the list is the backend's, less what cannot pass.
func TestGatewayCapabilities(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		list := talk(t, d, g.starttls[d]).upgrade(tls.VersionTLS13).ask(d.hello)
		for _, want := range d.offered {
			if !strings.Contains(list, want) {
				t.Errorf("%q is not in %q", want, list)
			}
		}
		for _, bad := range d.withheld {
			if strings.Contains(list, bad) {
				t.Errorf("%q is in %q", bad, list)
			}
		}
	})
}

// F16: refused before any of it is asked for, never passed on, never logged.
func TestGatewayCredentialsInClear(t *testing.T) {
	g := startGateway(t, "log: {level: debug}\n", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.starttls[d]).greeted()
		if d.final == `^\d{3} ` {
			c.ask(d.hello)
		}
		for _, a := range d.secrets {
			c.ask(a)
		}
		if got, n := g.stubs[d].received(); n > 0 {
			t.Errorf("the backend was sent %q", got)
		}
	})
	if strings.Contains(g.Log(), "AGEAYg") || strings.Contains(g.Log(), "001122334455") {
		t.Error("credentials are in the log")
	}
}

// F17: with TLS required nothing reaches the backend in clear.
func TestGatewayRequiresTLS(t *testing.T) {
	g := startGateway(t, "", ", require_tls: true")
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.starttls[d]).greeted()
		for _, a := range d.open {
			if strings.Contains(a.send, "\n.\r\n") {
				continue // content, which was not asked for
			}
			if _, err := io.WriteString(c, a.send); err != nil {
				break
			}
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		_, _ = io.ReadAll(c.r)
		if got, n := g.stubs[d].received(); n > 0 {
			t.Errorf("the backend was sent %q", got)
		}
	})
}

// F19: what is not TLS behind the go-ahead ends the connection, with an alert at most.
func TestGatewayGarbageForAHandshake(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		for _, garbage := range []string{d.noop.send, "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "\x15\x03\x01\x00\x02\x02\x28",
			"\x80\x2e\x01\x00\x02", "\x17\x03\x03\x00\x05hello", "\x00\x00\x00\x08\x04\xd2\x16\x2f"} {
			c := talk(t, d, g.starttls[d]).greeted()
			c.ask(d.starttls)
			c.send(garbage)
			said, _ := io.ReadAll(c.r)
			if len(said) > 0 && said[0] != 0x15 {
				t.Errorf("%q behind the go-ahead is answered %q", garbage, said)
			}
		}
	})
}

// F18: not now, and plaintext goes on; a ClientHello all the same is no hang.
func TestGatewayRefusedSTARTTLS(t *testing.T) {
	g := startGateway(t, "limits: {handshakes_per_client: 1, per_client_loopback: true, connections_per_client: 1000, connection_rate_per_client: 10000}\n", "")
	refusal := map[string]string{"smtp": "^454", "lmtp": "^454", "imap": "^a NO", "pop3": "^-ERR", "sieve": "^NO", "nntp": "^580", "ftp": "^431"}
	first := dialects[0]
	talk(t, first, g.starttls[first]).upgrade(tls.VersionTLS13)
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.starttls[d]).greeted()
		for range 2 {
			c.ask(ask{d.starttls.send, refusal[d.name]})
		}
		c.ask(d.quit)
		c = talk(t, d, g.starttls[d]).greeted()
		c.ask(ask{d.starttls.send, refusal[d.name]})
		c.send("\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + strings.Repeat("\xa5", 189))
		if _, err := io.ReadAll(c.r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("binary in place of a command hangs")
		}
	})
}

// F24: a browser's request ends at its first line, and nothing of it comes back.
func TestGatewayHTTPUnderTLS(t *testing.T) {
	g := startGateway(t, "", "")
	everyDialect(t, func(t *testing.T, d *dialect) {
		c := talk(t, d, g.implicit[d]).handshake(tls.VersionTLS13)
		_, _ = io.WriteString(c, "GET /secret-echo HTTP/1.1\r\nHost: x\r\n\r\n")
		said, err := io.ReadAll(c.r)
		if strings.Contains(string(said), "secret-echo") || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("answered %q, %v", said, err)
		}
	})
}

// F20, F21: content whose end has not come is nothing, whatever ends the stream.
func TestGatewayTruncatedContent(t *testing.T) {
	g := startGateway(t, "", "")
	for _, d := range dialects {
		if d.final != `^\d{3} ` {
			continue
		}
		for _, end := range []string{"fin", "close_notify"} {
			c := talk(t, d, g.starttls[d]).upgrade(tls.VersionTLS13)
			for _, a := range d.open[:4] {
				c.ask(a)
			}
			c.send("Subject: half of it\r\n")
			raw := c.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
			if end == "close_notify" {
				_ = c.Conn.(*tls.Conn).CloseWrite()
				_, _ = raw.Write([]byte("\r\n.\r\n")) // in clear
			}
			_ = raw.CloseWrite()
			if said, _ := io.ReadAll(c.r); strings.Contains(string(said), "250") {
				t.Errorf("%s, %s: answered %q", d.name, end, said)
			}
		}
		if got, _ := g.stubs[d].received(); strings.Contains(got, "\n.\r\n") {
			t.Errorf("%s: the backend was sent %q", d.name, got)
		}
	}
}
