package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// rig is a Conn that the test itself drives, step by step.
type rig struct {
	t      testing.TB
	conn   *Conn
	client *wireEnd
	server *wireEnd
	kick   chan struct{} // an event: input, or Wake
}

func newRig(t testing.TB, cfg *tls.Config, slots *Slots, o Options) *rig {
	r := &rig{t: t, kick: make(chan struct{}, 1)}
	r.client, r.server = newWire()
	event := func() {
		select {
		case r.kick <- struct{}{}:
		default:
		}
	}
	r.server.rx.onWrite = event
	o.Wake = event
	if o.OnPanic == nil {
		o.OnPanic = unexpectedPanic
	}
	if o.Permit == nil {
		var err error
		if o.Permit, err = slots.Reserve(noClient); err != nil {
			t.Fatal(err)
		}
	}
	r.conn = Server(&loopLink{end: r.server}, cfg, o)
	return r
}

// send writes to the server and lets it read.
func (r *rig) send(p []byte) {
	r.t.Helper()
	if err := writeAll(r.client, p); err != nil {
		r.t.Fatal(err)
	}
	_, _ = r.conn.Read(nil) // a failure is sticky, and pump tells it
}

// eventually waits for something that no event announces.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// pump reads at each event until the condition holds. It returns the error of the last Read.
func (r *rig) pump(until func() bool) error {
	r.t.Helper()
	for {
		_, err := r.conn.Read(nil)
		if until() {
			return err
		}
		select {
		case <-r.kick:
		case <-time.After(10 * time.Second):
			r.t.Fatal("no event")
		}
	}
}

func (r *rig) over() bool { return !r.conn.Handshaking() }

// fails expects the handshake to end for reason.
func (r *rig) fails(reason Reason) *HandshakeError {
	r.t.Helper()
	err := r.pump(r.over)
	var he *HandshakeError
	if !errors.As(err, &he) || he.Reason != reason {
		r.t.Fatalf("ended with %v, want %v", err, reason)
	}
	return he
}

func (r *rig) counts(slots *Slots, want SlotCounts) {
	r.t.Helper()
	if got := slots.Stats().SlotCounts; got != want {
		r.t.Errorf("slots %+v, want %+v", got, want)
	}
}

// clientHello13 is a ClientHello as crypto/tls sends it by default, in one record.
var clientHello13 = sync.OnceValue(func() []byte { return helloOf(tlstest.ClientConfig()) })

func helloOf(cfg *tls.Config) []byte {
	client, server := newWire()
	done := make(chan struct{})
	go func() { defer close(done); _ = tls.Client(client, cfg).Handshake() }()
	hello := make([]byte, recordHeader)
	_, _ = io.ReadFull(server, hello)
	hello = append(hello, make([]byte, length(hello))...)
	_, _ = io.ReadFull(server, hello[recordHeader:])
	server.Close()
	<-done
	return hello
}

// gate is a configuration whose callback stands still, holding its slot, until opened.
type gate struct{ entered, open chan struct{} }

func newGate() (*gate, *tls.Config) {
	g := &gate{entered: make(chan struct{}, 100), open: make(chan struct{})}
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		g.entered <- struct{}{}
		<-g.open
		return nil, nil
	}
	return g, cfg
}
