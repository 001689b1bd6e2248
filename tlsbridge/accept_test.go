package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"starttlsd/tlsbridge/tlstest"
)

// readAhead is a Waiter over a net.Conn: Await reads, at most that many bytes, and
// Read has what it got.
type readAhead struct {
	net.Conn
	most   int
	ahead  []byte
	err    error // of the last read
	awaits int

	interrupts atomic.Int64
	returned   atomic.Bool // Accept has: it must not interrupt any more
}

func (l *readAhead) Read(p []byte) (int, error) {
	if len(l.ahead) == 0 && l.err == nil {
		return 0, ErrWouldBlock
	}
	n := copy(p, l.ahead)
	if l.ahead = l.ahead[n:]; n > 0 {
		return n, nil
	}
	return 0, l.err
}

func (l *readAhead) Await() error {
	l.awaits++
	if len(l.ahead) > 0 || l.err != nil {
		return nil
	}
	b := make([]byte, l.most)
	n, err := l.Conn.Read(b)
	l.ahead = b[:n]
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = l.SetReadDeadline(time.Time{})
	} else {
		l.err = err
	}
	return nil
}

func (l *readAhead) Interrupt() {
	if l.returned.Load() {
		panic("interrupted after Accept has returned")
	}
	l.interrupts.Add(1)
	_ = l.SetReadDeadline(time.Now().Add(-time.Second))
}

// blocking is the same stream afterwards, as one that blocks.
type blocking struct{ *readAhead }

func (l blocking) Read(p []byte) (int, error) {
	if len(l.ahead) > 0 {
		return l.readAhead.Read(p)
	}
	return l.Conn.Read(p)
}

// acceptance is an Accept that runs, with its peer's end.
type acceptance struct {
	t      testing.TB
	peer   net.Conn
	waiter *readAhead
	slots  *Slots
	over   chan struct{}
	conn   *Conn
	err    error
}

// startAccept starts Accept on a new wire, or on a new TCP connection.
func startAccept(t testing.TB, tcp bool, cfg *tls.Config, slots *Slots, o Options) *acceptance {
	t.Helper()
	return startReading(t, tcp, 64<<10, cfg, slots, o)
}

// startReading is startAccept with that many bytes at most a read.
func startReading(t testing.TB, tcp bool, most int, cfg *tls.Config, slots *Slots, o Options) *acceptance {
	t.Helper()
	var peer, end net.Conn
	if peer, end = newWire(); tcp {
		peer, end = loopback(t)
	}
	a := &acceptance{t: t, peer: peer, waiter: &readAhead{Conn: end, most: most}, slots: slots, over: make(chan struct{})}
	if o.OnPanic == nil {
		o.OnPanic = unexpectedPanic
	}
	if o.Permit == nil {
		var err error
		if o.Permit, err = slots.Reserve(noClient); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		defer close(a.over)
		a.conn, a.err = Accept(a.waiter, cfg, o)
		a.waiter.returned.Store(true)
	}()
	t.Cleanup(func() { peer.Close(); end.Close(); <-a.over })
	return a
}

func loopback(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err == nil {
		server, err = l.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// serves waits for the Conn and has it echo over a link that blocks, until the end.
func (a *acceptance) serves() *Conn {
	a.t.Helper()
	<-a.over
	if a.err != nil {
		a.t.Fatal(a.err)
	}
	a.conn.SetLink(blocking{a.waiter})
	go func() { _, _ = io.Copy(struct{ io.Writer }{a.conn}, struct{ io.Reader }{a.conn}) }()
	return a.conn
}

// fails waits for the error and expects that nothing is left.
func (a *acceptance) fails(reason Reason) *HandshakeError {
	a.t.Helper()
	<-a.over
	he, ok := a.err.(*HandshakeError)
	if !ok || he.Reason != reason || a.conn != nil {
		a.t.Fatalf("ended with %v, %v, want %v", a.conn, a.err, reason)
	}
	return he
}

func (a *acceptance) counts(want SlotCounts) {
	a.t.Helper()
	if got := a.slots.Stats().SlotCounts; got != want {
		a.t.Errorf("slots %+v, want %+v", got, want)
	}
}

func TestAcceptShakesHandsAndGoesOnOverAnyLink(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		cfg, ccfg := tlstest.ServerConfig(), clientConfig(version)
		ccfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
		for i := range 3 {
			a := startAccept(t, true, cfg, NewSlots(SlotLimits{}), Options{Timeout: time.Minute})
			client := tls.Client(a.peer, ccfg)
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			state := a.serves().ConnectionState()
			if state.DidResume != (i > 0) || state.Version != version || !state.HandshakeComplete {
				t.Errorf("connection %d: %+v", i, state)
			}
			echo(t, client, strings.Repeat("hello", 20_000))
			a.counts(SlotCounts{})
			if n := a.waiter.interrupts.Load(); n > 0 {
				t.Errorf("%d interrupts of nobody", n)
			}
			a.peer.Close()
		}
	})
}

func TestAcceptIsFedByteByByte(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		for _, tcp := range []bool{false, true} {
			a := startReading(t, tcp, 1, tlstest.ServerConfig(), NewSlots(SlotLimits{}), Options{})
			client := tls.Client(trickle{a.peer}, clientConfig(version))
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			a.serves()
			echo(t, client, "hello")
		}
	})
}

func TestAcceptWithClientCertificateAndHelloRetryRequest(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg := tlstest.ServerConfig()
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
		cfg.CurvePreferences = []tls.CurveID{tls.CurveP256}
		a := startAccept(t, true, cfg, NewSlots(SlotLimits{}), Options{})
		ccfg := clientConfig(version)
		ccfg.Certificates = []tls.Certificate{tlstest.ClientCertificate("alice")}
		ccfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256}
		client := tls.Client(a.peer, ccfg)
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		if peer := a.serves().ConnectionState().PeerCertificates; len(peer) != 1 || peer[0].Subject.CommonName != "alice" {
			t.Errorf("peer certificates %v", peer)
		}
	})
}

func TestSlotIsGivenUpForThePeerAndNotHeldOverAWrite(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		slots := NewSlots(SlotLimits{Computing: 1})
		a := startAccept(t, false, tlstest.ServerConfig(), slots, Options{})
		writes := make(chan int, 10)
		a.waiter.Conn.(*wireEnd).tx.onWrite = func() { writes <- slots.Stats().Computing }
		if err := writeAll(a.peer, helloOf(clientConfig(version))); err != nil {
			t.Fatal(err)
		}
		if n := <-writes; n != 0 {
			t.Errorf("%d computing while the first flight is written", n)
		}
		a.counts(SlotCounts{Parked: 1})
		a.waiter.Conn.(*wireEnd).tx.onWrite = nil
		a.peer.Close()
		a.fails(ReasonClosed)
		a.counts(SlotCounts{})
	})
}

func TestAcceptEndsAtTheTimeout(t *testing.T) {
	for name, sent := range map[string][]byte{
		"silent":  nil,
		"stalled": {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc},
		"parked":  clientHello13(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := startAccept(t, false, tlstest.ServerConfig(), NewSlots(SlotLimits{}), Options{Timeout: 10 * time.Second})
				started := time.Now()
				if err := writeAll(a.peer, sent); err != nil {
					t.Fatal(err)
				}
				if he := a.fails(ReasonTimeout); !errors.Is(he, os.ErrDeadlineExceeded) || time.Since(started) != 10*time.Second {
					t.Errorf("after %v: %v", time.Since(started), he)
				}
				synctest.Wait()
				a.counts(SlotCounts{})
			})
		})
	}
}

func TestAcceptTimesOutInTheQueueToo(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	slots := NewSlots(SlotLimits{Computing: 1})
	g, cfg := newGate()
	first := startAccept(t, false, cfg, slots, Options{})
	if err := writeAll(first.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	<-g.entered
	second := startAccept(t, false, cfg, slots, Options{Timeout: 20 * time.Millisecond})
	if err := writeAll(second.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	second.fails(ReasonTimeout)
	second.counts(SlotCounts{Computing: 1})
	third := startAccept(t, false, cfg, slots, Options{})
	go func() { _ = tls.Client(third.peer, tlstest.ClientConfig()).Handshake() }()
	eventually(t, "the third waits", func() bool { return slots.Stats().Queued == 1 })
	close(g.open)
	third.serves()
	first.peer.Close()
	third.peer.Close()
	first.fails(ReasonClosed)
	first.counts(SlotCounts{})
}

// What comes at the end of a stream, or after it, is no reason to look at the link
// again and again while others have the slots.
func TestWaitingForASlotDoesNotSpin(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1})
	parkedOne := startAccept(t, false, tlstest.ServerConfig(), slots, Options{})
	if err := writeAll(parkedOne.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "parked", func() bool { return slots.Stats().Parked == 1 })
	g, cfg := newGate()
	computing := startAccept(t, false, cfg, slots, Options{})
	queuedOne := startAccept(t, false, cfg, slots, Options{})
	if err := writeAll(computing.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	<-g.entered
	parkedOne.peer.(*wireEnd).tx.close()
	if err := writeAll(queuedOne.peer, append(clientHello13(), "more of it"...)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both wait", func() bool { return slots.Stats().Queued == 2 })
	time.Sleep(20 * time.Millisecond)
	close(g.open)
	parkedOne.fails(ReasonClosed)
	queuedOne.peer.Close()
	computing.peer.Close()
	<-queuedOne.over
	<-computing.over
	for name, a := range map[string]*acceptance{"ended": parkedOne, "queued": queuedOne} {
		if a.waiter.awaits > 10 {
			t.Errorf("%s: awaited %d times", name, a.waiter.awaits)
		}
	}
	computing.counts(SlotCounts{})
}

func TestAcceptOfGarbageIsAnsweredByAnAlert(t *testing.T) {
	for _, tt := range []struct {
		name, sent string
		reason     Reason
		alert      byte // 0: none
	}{
		{"plaintext", "USER alice\r\n", ReasonNotTLS, 0},
		{"no ClientHello", "\x16\x03\x01\x00\x04\x02\x00\x00\x00", ReasonProtocol, 50},
		{"broken ClientHello", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", ReasonProtocol, 50},
		{"old version", string(helloOf(&tls.Config{ServerName: "x", MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})), ReasonNoVersion, 70},
		{"garbage instead of Finished", string(clientHello13()) + "\x17\x03\x03\x00\x20" + strings.Repeat("x", 32), ReasonProtocol, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := startAccept(t, false, tlstest.ServerConfig(), NewSlots(SlotLimits{}), Options{})
			if err := writeAll(a.peer, []byte(tt.sent)); err != nil {
				t.Fatal(err)
			}
			a.fails(tt.reason)
			a.counts(SlotCounts{})
			a.waiter.Conn.(*wireEnd).tx.close()
			out, _ := io.ReadAll(a.peer)
			switch {
			case tt.name == "garbage instead of Finished": // the alert is encrypted
				if len(out) == 0 || out[0] != 0x16 {
					t.Errorf("% x", out)
				}
			case tt.alert == 0 && len(out) > 0:
				t.Errorf("% x was sent", out)
			case tt.alert != 0 && (len(out) != 7 || out[0] != 0x15 || out[6] != tt.alert):
				t.Errorf("% x, want alert %d", out, tt.alert)
			}
		})
	}
}

func TestAcceptEndsWithTheStreamAtEachStage(t *testing.T) {
	for name, sent := range map[string]string{
		"silent":           "",
		"in the hello":     string(clientHello13()[:50]),
		"parked":           string(clientHello13()),
		"in the answer":    string(clientHello13()) + "\x14\x03\x03\x00\x01",
		"after the answer": string(clientHello13()) + "\x14\x03\x03\x00\x01\x01\x17",
	} {
		for _, reset := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				slots := NewSlots(SlotLimits{})
				a := startAccept(t, true, tlstest.ServerConfig(), slots, Options{})
				if err := writeAll(a.peer, []byte(sent)); err != nil {
					t.Fatal(err)
				}
				if len(sent) > 50 {
					eventually(t, "parked", func() bool { return slots.Stats().Parked == 1 })
				}
				if reset {
					_ = a.peer.(*net.TCPConn).SetLinger(0)
				}
				a.peer.Close()
				a.fails(ReasonClosed)
				a.counts(SlotCounts{})
			})
		}
	}
}

// failingAwait cannot wait.
type failingAwait struct{ *readAhead }

func (failingAwait) Await() error { return errCause }

func TestAcceptEndsWhenItCannotWait(t *testing.T) {
	for name, sent := range map[string][]byte{"silent": nil, "parked": clientHello13()} {
		t.Run(name, func(t *testing.T) {
			slots := NewSlots(SlotLimits{})
			permit, err := slots.Reserve(noClient)
			if err != nil {
				t.Fatal(err)
			}
			_, end := newWire()
			c, err := Accept(failingAwait{&readAhead{Conn: end, ahead: sent}}, tlstest.ServerConfig(), Options{Permit: permit})
			var he *HandshakeError
			if c != nil || !errors.As(err, &he) || he.Reason != ReasonClosed || he.Err != errCause {
				t.Error(c, err)
			}
			if got := slots.Stats().SlotCounts; got != (SlotCounts{}) {
				t.Errorf("slots %+v", got)
			}
		})
	}
}

// refusing does not take our flight.
type refusing struct{ *readAhead }

func (refusing) Write([]byte) (int, error) { return 0, net.ErrClosed }

func TestAcceptEndsWhenTheLinkRefusesOurFlight(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		slots := NewSlots(SlotLimits{})
		permit, err := slots.Reserve(noClient)
		if err != nil {
			t.Fatal(err)
		}
		_, end := newWire()
		l := refusing{&readAhead{Conn: end, ahead: helloOf(clientConfig(version))}}
		_, err = Accept(l, tlstest.ServerConfig(), Options{Permit: permit})
		if he, ok := err.(*HandshakeError); !ok || he.Reason != ReasonClosed || he.Err != net.ErrClosed {
			t.Error(err)
		}
		if got := slots.Stats().SlotCounts; got != (SlotCounts{}) {
			t.Errorf("slots %+v", got)
		}
	})
}

func TestAcceptWithoutAPermitIsRefused(t *testing.T) {
	slots := NewSlots(SlotLimits{})
	permit, err := slots.Reserve(noClient)
	if err != nil {
		t.Fatal(err)
	}
	permit.Release()
	a := startAccept(t, false, tlstest.ServerConfig(), slots, Options{Permit: permit})
	a.fails(ReasonInternal)
	a.counts(SlotCounts{})
}

func TestManyAcceptsShareOneSlot(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	slots := NewSlots(SlotLimits{Computing: 1})
	cfg := tlstest.ServerConfig()
	var all sync.WaitGroup
	for i := range 64 {
		a := startAccept(t, true, cfg, slots, Options{Timeout: time.Minute})
		all.Go(func() {
			defer a.peer.Close()
			client := tls.Client(a.peer, clientConfig(tls.VersionTLS12+uint16(i%2)))
			if err := client.Handshake(); err != nil {
				t.Error(err)
				return
			}
			<-a.over
			if a.err != nil {
				t.Error(a.err)
			}
		})
	}
	all.Wait()
	if stats := slots.Stats(); stats.SlotCounts != (SlotCounts{}) || stats.Peak.Computing != 1 {
		t.Errorf("%+v", stats)
	}
}

// An upload begins in the segment of the client's Finished, and does not wait. What
// there is no use for stays in the link, however much it is.
func TestAnUploadBehindFinishedIsLeftInTheLink(t *testing.T) {
	for name, size := range map[string]int{"a line": 10, "more than a handshake may have": 4 * maxEarly} {
		t.Run(name, func(t *testing.T) {
			a := startReading(t, false, 8*maxEarly, tlstest.ServerConfig(), NewSlots(SlotLimits{}), Options{})
			g := &gatherer{Conn: a.peer}
			client := tls.Client(afterHello{g}, clientConfig(tls.VersionTLS13))
			message := strings.Repeat("x", size)
			if _, err := io.WriteString(client, message); err != nil {
				t.Fatal(err)
			}
			if err := g.release(); err != nil {
				t.Fatal(err)
			}
			<-a.over
			if a.err != nil {
				t.Fatal(a.err)
			}
			if n := a.conn.Buffered(); n == 0 || n > takeSize {
				t.Errorf("%d bytes were taken from the link", n)
			}
			expect(t, a.conn, message) // what Await has got, and nothing more
			if _, err := a.conn.Read(make([]byte, 1)); err != ErrWouldBlock {
				t.Error(err)
			}
		})
	}
}

func TestTimeoutsAtRandomMomentsLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	slots := NewSlots(SlotLimits{Computing: 2})
	cfg := tlstest.ServerConfig()
	var all sync.WaitGroup
	var done atomic.Int64
	for range 300 {
		o := Options{Timeout: time.Duration(1 + rand.IntN(int(30*time.Millisecond)))}
		a := startAccept(t, false, cfg, slots, o)
		all.Go(func() {
			var client sync.WaitGroup
			client.Go(func() { _ = tls.Client(a.peer, tlstest.ClientConfig()).Handshake() })
			if <-a.over; a.err == nil {
				done.Add(1)
			} else if he, ok := a.err.(*HandshakeError); !ok || he.Reason != ReasonTimeout {
				t.Error(a.err)
			}
			a.waiter.Close()
			client.Wait()
		})
	}
	all.Wait()
	t.Log(done.Load(), "of 300 in time")
	eventually(t, "all slots back", func() bool { return slots.Stats().SlotCounts == SlotCounts{} })
}

func TestPanicInACallbackIsAnErrorOfAccept(t *testing.T) {
	cfg := tlstest.ServerConfig()
	cfg.Certificates = nil
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("boom") }
	heard := make(chan any, 1)
	a := startAccept(t, false, cfg, NewSlots(SlotLimits{}), Options{OnPanic: func(v any, _ []byte) { heard <- v }})
	if err := writeAll(a.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	he := a.fails(ReasonInternal)
	if p, ok := errors.AsType[*PanicError](he); !ok || p.Value != "boom" || <-heard != "boom" {
		t.Error(he)
	}
	a.counts(SlotCounts{})
}

func TestCallbacksSeeTheAddressesInAccept(t *testing.T) {
	seen := make(chan net.Addr, 1)
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		seen <- hello.Conn.RemoteAddr()
		return nil, nil
	}
	a := startAccept(t, true, cfg, NewSlots(SlotLimits{}), Options{})
	if err := writeAll(a.peer, clientHello13()); err != nil {
		t.Fatal(err)
	}
	if got, want := (<-seen).String(), a.peer.LocalAddr().String(); got != want {
		t.Errorf("address %s, want %s", got, want)
	}
}
