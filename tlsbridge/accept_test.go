package tlsbridge

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"starttlsd/tlsbridge/tlstest"
)

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
