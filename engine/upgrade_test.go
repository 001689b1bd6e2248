package engine

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge"
	"starttlsd/tlsbridge/tlstest"
)

func TestPlaintextBehindSTARTTLSIsRefusedAndNeverExecuted(t *testing.T) {
	s := start(t)
	for _, behind := range []string{"ECHO injected\r\n", "EC", "\r\n", "\x16\x03\x01"} {
		c := s.dial()
		c.send("STARTTLS\r\n" + behind)
		c.expect("-injected")
		c.ended()
	}
	eventually(t, "four log lines", func() bool { return strings.Count(s.log.String(), "plaintext behind STARTTLS") == 4 })
	if n := s.eng.Stats().Injected; n != 4 {
		t.Errorf("injected counted %d times", n)
	}
}

// The command and what is injected behind it, cut at every byte and with a pause
// at the cut: whatever arrives before the upgrade is refused, whatever arrives
// after it is not TLS. No byte of it is ever answered under TLS.
func TestInjectionSweepIsNeverAnswered(t *testing.T) {
	const attack = "STARTTLS\r\nECHO injected\r\n"
	runs := 10_000
	if testing.Short() {
		runs = 300
	}
	s := start(t, withLimits(Limits{Linger: 200 * time.Millisecond}))
	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range work {
				attackOnce(t, s.addr, attack, i%(len(attack)+1), []time.Duration{0, time.Millisecond, 20 * time.Millisecond}[i/len(attack)%3])
			}
		}()
	}
	for i := range runs {
		work <- i
	}
	close(work)
	wg.Wait()
	if n := s.eng.Stats().Upgrades; n != 0 {
		t.Errorf("%d upgrades came of it", n)
	}
}

// attackOnce sends the attack cut in two, then a ClientHello if it is told to go
// ahead, and fails on any answer but the greeting, the go-ahead or the refusal.
func attackOnce(t *testing.T, addr, attack string, cut int, pause time.Duration) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(nc, attack[:cut])
	time.Sleep(pause)
	_, _ = io.WriteString(nc, attack[cut:])
	got, _ := io.ReadAll(nc) // a reset is fine: the rest was not TLS
	switch string(got) {
	case "+hello\r\n", "+hello\r\n+go\r\n", "+hello\r\n-injected\r\n", "":
	default:
		t.Errorf("cut at %d, pause %v: got %q", cut, pause, got)
	}
}

func TestNothingInPlaintextFollowsAFailedHandshake(t *testing.T) {
	s := start(t, withLimits(Limits{Handshake: 300 * time.Millisecond, Linger: 100 * time.Millisecond}))
	for name, first := range map[string]string{
		"a command":          "ECHO x\r\n",
		"a bad record":       "\x16\x03\x01\x00\x04\x01\x00\x00\x00",
		"an alert":           "\x15\x03\x01\x00\x02\x02\x28",
		"application data":   "\x17\x03\x03\x00\x05hello",
		"SSLv2":              "\x80\x2e\x01\x00\x02",
		"nothing":            "",
		"half a ClientHello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
	} {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		c.send(first)
		rest, _ := io.ReadAll(c.r)
		if len(rest) > 0 && (rest[0] != 0x15 || bytes.Contains(rest, []byte("\r\n"))) {
			t.Errorf("after %s: %q", name, rest)
		}
	}
}

// A client that does not trust our certificate says so and is gone. That is what
// an operator has to see.
func TestHandshakesThatThePeerGivesUpAreCountedWithTheirReason(t *testing.T) {
	s := start(t)
	const n = 50
	for range n {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		cfg := tlstest.ClientConfig()
		cfg.RootCAs = nil
		if err := tls.Client(c.Conn, cfg).Handshake(); err == nil {
			t.Fatal("trusted")
		}
		c.Close()
	}
	half := s.dial()
	half.send("STARTTLS\r\n")
	half.expect("+go")
	half.send("\x16\x03\x01\x02\x00\x01")
	half.Close()
	eventually(t, "all counted", func() bool {
		st := s.eng.Stats()
		return st.Failed == n+1 && st.EndedBy(ReasonHandshakeFailed) == n+1
	})
	eventually(t, "their reasons", func() bool {
		log := s.log.String()
		return strings.Count(log, "reason=peer_alert") == n && strings.Count(log, "reason=closed") == 1
	})
}

func TestHandshakeDeadlineIsAbsolute(t *testing.T) {
	s := start(t, withLimits(Limits{Handshake: 500 * time.Millisecond}))
	for _, drip := range []bool{false, true} {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		began := time.Now()
		if drip {
			go func() {
				hello := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("r", 400)
				for i := range hello {
					if _, err := io.WriteString(c.Conn, hello[i:i+1]); err != nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
			}()
		}
		_, _ = io.ReadAll(c.r)
		if took := time.Since(began); took < 400*time.Millisecond || took > 5*time.Second {
			t.Errorf("drip %v: closed after %v", drip, took)
		}
	}
	eventually(t, "both blamed on the deadline", func() bool {
		st := s.eng.Stats()
		return st.EndedBy(ReasonHandshakeTimeout) == 2
	})
}

func TestOversizeClientHelloIsCutOffAtTheBudget(t *testing.T) {
	s := start(t)
	c := s.dial()
	c.send("STARTTLS\r\n")
	c.expect("+go")
	began := time.Now()
	record := "\x16\x03\x01\x40\x00"
	c.send(record + "\x01\x00\xff\xff" + strings.Repeat("x", 16380))
	_, _ = io.WriteString(c.Conn, record+strings.Repeat("x", 16384))
	_, _ = io.ReadAll(c.r)
	if time.Since(began) > 5*time.Second {
		t.Error("not closed before the handshake deadline")
	}
}

// RFC 3207 §4: what cannot be served is refused before the go-ahead, and the
// dialogue goes on.
func TestRefusedUpgradeLeavesThePlaintextDialogueUsable(t *testing.T) {
	s := start(t, func(c *Config) { c.Listeners[0].TLS = nil })
	c := s.dial()
	c.send("STARTTLS\r\n")
	c.expect("-no tls")
	c.send("ECHO still here\r\n")
	c.expect("+still here")
	c.send("\x16\x03\x01\x00\x05hello\r\n") // a client that did not listen
	c.expect("-what")
}

func TestPerClientHandshakeRate(t *testing.T) {
	s := start(t, withAdmission(Admission{LimitLoopback: true, HandshakesPerClient: 3}))
	for range 3 {
		s.dialTLS()
	}
	c := s.dial()
	c.send("STARTTLS\r\n")
	c.expect("-no tls")
}

// Clients that take the go-ahead and then say nothing hold no goroutine and
// cannot shut others out: one address holds an eighth of the permits at most.
func TestSilentClientsAfterSTARTTLSDoNotShutOthersOut(t *testing.T) {
	for name, source := range map[string]func(i int) string{
		"from one address":    func(int) string { return "127.0.0.1" },
		"from many addresses": func(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) {
				c.Admission = Admission{LimitLoopback: true, PerClient: 5000, RatePerClient: 5000, HandshakesPerClient: 5000}
			})
			const silent = 1024
			refused := 0
			for i := range silent {
				c := s.dialFrom(source(i))
				c.expect("+hello")
				c.send("STARTTLS\r\n")
				line, err := c.r.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if line == "-no tls\r\n" {
					refused++
				}
			}
			if st := s.eng.Stats(); st.Handshake.Waiting != silent-refused || st.Lent != 0 {
				t.Errorf("%+v with %d refused", st.Handshake, refused)
			}
			if name == "from one address" && refused != silent-512 {
				t.Errorf("%d refused", refused)
			}
			began := time.Now()
			c := s.dialFrom("127.0.0.99")
			c.expect("+hello")
			c.send("STARTTLS\r\n")
			c.expect("+go")
			c.handshake(tlstest.ClientConfig())
			c.send("ECHO served\r\n")
			c.expect("+served")
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("served after %v", took)
			}
		})
	}
}

func (s *server) dialFrom(source string) *client {
	s.t.Helper()
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0))}
	nc, err := d.Dial("tcp", s.addr)
	if err != nil {
		s.t.Skipf("cannot dial from %s: %v", source, err)
	}
	s.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(60 * time.Second))
	return &client{s.t, nc, newReader(nc)}
}

// segment is a net.Conn that gathers what is written until it is sent, so that a
// test decides what shares a segment.
type segment struct {
	net.Conn
	hold bool
	b    []byte
}

func (s *segment) Write(p []byte) (int, error) {
	if s.hold {
		s.b = append(s.b, p...)
		return len(p), nil
	}
	return s.Conn.Write(append(s.b, p...))
}

func (s *segment) flush() error {
	_, err := s.Conn.Write(s.b)
	s.b, s.hold = nil, false
	return err
}

// The client's Finished and its first commands, in records of their own but in
// one segment, are all answered though nothing more arrives.
func TestCommandsCoalescedWithFinishedAreAnswered(t *testing.T) {
	s := start(t)
	for range 50 {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		seg := &segment{Conn: c.Conn}
		cfg := tlstest.ClientConfig()
		cfg.MinVersion = tls.VersionTLS13
		cfg.VerifyConnection = func(tls.ConnectionState) error { seg.hold = true; return nil } // before Finished
		tc := tls.Client(seg, cfg)
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.Conn, c.r = tc, newReader(tc)
		c.send("ECHO one\r\n")
		c.send("ECHO two\r\n")
		if err := seg.flush(); err != nil {
			t.Fatal(err)
		}
		c.expect("+one", "+two")
	}
}

// trickle writes one byte a segment.
type trickle struct{ net.Conn }

func (s trickle) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestWholeSessionInOneByteSegments(t *testing.T) {
	s := start(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := s.dial()
		c.Conn = trickle{c.Conn}
		c.send("ECHO plain\r\nSTARTTLS\r\n")
		c.expect("+plain", "+go")
		cfg := tlstest.ClientConfig()
		cfg.MinVersion, cfg.MaxVersion = version, version
		c.handshake(cfg)
		c.send("ECHO one\r\nSINK 5\r\nabcdeECHO two\r\nQUIT\r\n")
		c.expect("+one", "+8587d865", "+two", "+bye")
		c.ended()
	}
}

// A close_notify ends the connection: what follows it is never read.
func TestNoWayBackToPlaintextAfterCloseNotify(t *testing.T) {
	s := start(t)
	for _, before := range []string{"", "SINK 100\r\n" + strings.Repeat("b", 50)} {
		c := s.dialTLS()
		raw := c.Conn.(*tls.Conn).NetConn()
		c.send(before)
		if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(raw, "ECHO plain again\r\n")
		if rest, _ := io.ReadAll(raw); bytes.Contains(rest, []byte("plain")) {
			t.Errorf("answered %q", rest)
		}
	}
}

func TestQueueIsBoundedInAStormAndRestIsRefused(t *testing.T) {
	s := start(t, func(c *Config) { c.Handshakes = tlsbridge.SlotLimits{Waiting: 16} })
	clients := make([]*client, 64)
	goAheads := 0
	for i := range clients {
		clients[i] = s.dial()
		clients[i].send("STARTTLS\r\n")
		line, err := clients[i].r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "+go\r\n" {
			goAheads++
		}
	}
	if goAheads != 16 {
		t.Errorf("%d go-aheads", goAheads)
	}
}
