package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"starttlsd/tlsbridge/tlstest"
)

var errCause = errors.New("the cause")

// abortsWith expects that Abort, from another goroutine and twice, ends the
// handshake with its cause, and that nothing is left of it.
func abortsWith(t *testing.T, r *rig, slots *Slots) {
	t.Helper()
	for range 2 {
		go r.conn.Abort(errCause)
	}
	if he := r.fails(ReasonClosed); he.Err != errCause {
		t.Errorf("cause %v", he.Err)
	}
	r.counts(slots, SlotCounts{})
}

func TestAbortAtEachMoment(t *testing.T) {
	one := SlotLimits{Computing: 1}
	t.Run("before the ClientHello", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		r := newRig(t, tlstest.ServerConfig(), slots, Options{})
		r.counts(slots, SlotCounts{Waiting: 1})
		abortsWith(t, r, slots)
	})
	t.Run("in the ClientHello", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		r := newRig(t, tlstest.ServerConfig(), slots, Options{})
		r.send(clientHello13()[:100])
		r.counts(slots, SlotCounts{Waiting: 1})
		abortsWith(t, r, slots)
	})
	t.Run("queued", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		g, cfg := newGate()
		first, second := newRig(t, cfg, slots, Options{}), newRig(t, cfg, slots, Options{})
		first.send(clientHello13())
		<-g.entered
		second.send(clientHello13())
		second.counts(slots, SlotCounts{Computing: 1, Queued: 1})
		second.conn.Abort(errCause)
		second.fails(ReasonClosed)
		second.counts(slots, SlotCounts{Computing: 1})
		close(g.open)
		abortsWith(t, first, slots)
	})
	t.Run("computing", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		g, cfg := newGate()
		r := newRig(t, cfg, slots, Options{})
		r.send(clientHello13())
		<-g.entered
		r.conn.Abort(errCause)
		r.counts(slots, SlotCounts{Computing: 1})
		close(g.open)
		abortsWith(t, r, slots)
	})
	t.Run("parked", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		r := newRig(t, tlstest.ServerConfig(), slots, Options{})
		r.send(clientHello13())
		_ = r.pump(func() bool { return slots.Stats().Parked == 1 })
		abortsWith(t, r, slots)
	})
	t.Run("resuming", func(t *testing.T) {
		defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
		slots := NewSlots(one)
		r := newRig(t, tlstest.ServerConfig(), slots, Options{})
		r.send(clientHello13())
		_ = r.pump(func() bool { return slots.Stats().Parked == 1 })
		g, cfg := newGate()
		other := newRig(t, cfg, slots, Options{})
		other.send(clientHello13())
		<-g.entered
		r.send([]byte("\x14\x03\x03\x00\x01\x01"))
		r.counts(slots, SlotCounts{Computing: 1, Queued: 1})
		r.conn.Abort(errCause)
		r.fails(ReasonClosed)
		r.counts(slots, SlotCounts{Computing: 1})
		close(g.open)
		abortsWith(t, other, slots)
	})
	t.Run("after", func(t *testing.T) {
		l, end := startLoop(t, tlstest.ServerConfig())
		client := tls.Client(end, tlstest.ClientConfig())
		echo(t, client, "hello")
		l.conn.Abort(errCause)
		echo(t, client, "still here")
	})
}

// Aborts, input and grants race each other from many goroutines.
func TestAbortsAtRandomMomentsLeaveNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	slots := NewSlots(SlotLimits{Computing: 2})
	cfg := tlstest.ServerConfig()
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			r := newRig(t, cfg, slots, Options{})
			client := tls.Client(r.client, tlstest.ClientConfig())
			var ends sync.WaitGroup
			ends.Go(func() { _ = client.Handshake() })
			ends.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Microsecond)
				r.conn.Abort(errCause)
			})
			_ = r.pump(r.over)
			r.server.Close()
			ends.Wait()
		})
	}
	all.Wait()
	if got := slots.Stats().SlotCounts; got != (SlotCounts{}) {
		t.Errorf("slots %+v", got)
	}
}

func TestTimeoutEndsTheHandshake(t *testing.T) {
	for name, sent := range map[string][]byte{
		"silent":  nil,
		"stalled": {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc},
		"parked":  clientHello13(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				slots := NewSlots(SlotLimits{})
				r := newRig(t, tlstest.ServerConfig(), slots, Options{Timeout: 10 * time.Second})
				started := time.Now()
				r.send(sent)
				for range 9 {
					time.Sleep(time.Second)
					if _, err := r.conn.Read(nil); err != ErrWouldBlock {
						t.Fatalf("after %v: %v", time.Since(started), err)
					}
				}
				time.Sleep(time.Second)
				synctest.Wait()
				_, err := r.conn.Read(nil)
				var he *HandshakeError
				if !errors.As(err, &he) || he.Reason != ReasonTimeout || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("after %v: %v", time.Since(started), err)
				}
				r.counts(slots, SlotCounts{})
			})
		})
	}
}

func TestTimeoutIsForgottenWithTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, end := startLoop(t, tlstest.ServerConfig(), func(_ *loop, _ *loopLink, o *Options) { o.Timeout = time.Second })
		client := tls.Client(end, tlstest.ClientConfig())
		echo(t, client, "before")
		time.Sleep(time.Hour)
		echo(t, client, "after")
		end.Close()
		_ = l.wait()
	})
}

func TestPanicInACallbackFailsThatHandshakeAlone(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1})
	cfg := tlstest.ServerConfig()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { panic("boom") }
	cfg.Certificates = nil
	heard := make(chan any, 1)
	r := newRig(t, cfg, slots, Options{OnPanic: func(v any, stack []byte) {
		if len(stack) == 0 {
			t.Error("no stack")
		}
		heard <- v
	}})
	r.send(clientHello13())
	he := r.fails(ReasonInternal)
	if p, ok := errors.AsType[*PanicError](he); !ok || p.Value != "boom" || <-heard != "boom" {
		t.Errorf("error %v", he)
	}
	r.counts(slots, SlotCounts{})
}

func TestGoexitInACallbackReturnsTheSlot(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1})
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { runtime.Goexit(); return nil, nil }
	r := newRig(t, cfg, slots, Options{})
	r.send(clientHello13())
	r.fails(ReasonInternal)
	r.counts(slots, SlotCounts{})
}

func TestEndOfTheStreamEndsTheHandshake(t *testing.T) {
	for name, sent := range map[string][]byte{"silent": nil, "stalled": clientHello13()[:50], "parked": clientHello13()} {
		t.Run(name, func(t *testing.T) {
			slots := NewSlots(SlotLimits{})
			r := newRig(t, tlstest.ServerConfig(), slots, Options{})
			r.send(sent)
			r.client.Close()
			r.fails(ReasonClosed)
			r.counts(slots, SlotCounts{})
		})
	}
}

// brokenLink reads from the wire and refuses writes.
type brokenLink struct{ loopLink }

func (*brokenLink) Write([]byte) (int, error) { return 0, net.ErrClosed }

func TestLinkThatRefusesOurFlightEndsTheHandshake(t *testing.T) {
	slots := NewSlots(SlotLimits{})
	r := newRig(t, tlstest.ServerConfig(), slots, Options{})
	r.conn.link = &brokenLink{loopLink{end: r.server}}
	r.send(clientHello13())
	if he := r.fails(ReasonClosed); he.Err != net.ErrClosed {
		t.Error(he)
	}
	r.counts(slots, SlotCounts{})
}

func TestWriteAndCloseNotifySendNothingWhileHandshaking(t *testing.T) {
	slots := NewSlots(SlotLimits{})
	r := newRig(t, tlstest.ServerConfig(), slots, Options{})
	if n, err := r.conn.Write([]byte("plaintext")); n != 0 || err == nil {
		t.Errorf("write: %d, %v", n, err)
	}
	if err := r.conn.CloseNotify(); err != nil {
		t.Error(err)
	}
	if state := r.conn.ConnectionState(); state.HandshakeComplete || state.Version != 0 {
		t.Errorf("state %+v", state)
	}
	r.conn.Abort(nil)
	r.fails(ReasonClosed)
	r.server.Close()
	if out, _ := io.ReadAll(r.client); len(out) > 0 {
		t.Errorf("% x was sent", out)
	}
}
