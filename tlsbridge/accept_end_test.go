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
