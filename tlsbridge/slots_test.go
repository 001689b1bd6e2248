package tlsbridge

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

func TestReserveIsBoundedInAllAndPerClient(t *testing.T) {
	slots := NewSlots(SlotLimits{Waiting: 8, PerClient: 2})
	a, b := netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/64")
	var held []*Permit
	reserve := func(client netip.Prefix, want error) {
		t.Helper()
		p, err := slots.Reserve(client)
		if err != want {
			t.Fatalf("client %v: %v, want %v", client, err, want)
		}
		if err == nil {
			held = append(held, p)
		}
	}
	for range 2 {
		reserve(a, nil)
		reserve(b, nil)
	}
	reserve(a, ErrClientBusy)
	reserve(b, ErrClientBusy)
	for range 4 { // exempt
		reserve(noClient, nil)
	}
	reserve(noClient, ErrBusy)
	held[0].Release()
	held[0].Release()
	reserve(b, ErrClientBusy)
	reserve(a, nil)
	for _, p := range held {
		p.Release()
	}
	if stats := slots.Stats(); stats.SlotCounts != (SlotCounts{}) || stats.Peak.Waiting != 8 || len(slots.clients) != 0 {
		t.Errorf("%+v, %d clients", stats, len(slots.clients))
	}
}

func TestSilentClientsOfOneAddressDoNotShutOthersOut(t *testing.T) {
	slots := NewSlots(SlotLimits{Waiting: 80})
	silent := netip.MustParsePrefix("192.0.2.1/32")
	var rigs []*rig
	for {
		p, err := slots.Reserve(silent)
		if err != nil {
			if err != ErrClientBusy || len(rigs) != 10 {
				t.Fatalf("%v after %d", err, len(rigs))
			}
			break
		}
		rigs = append(rigs, newRig(t, tlstest.ServerConfig(), slots, Options{Permit: p}))
	}
	_, end := startLoop(t, tlstest.ServerConfig(), withSlots(t, slots))
	echo(t, tls.Client(end, tlstest.ClientConfig()), "served")
	// Whoever has sent its ClientHello no longer counts as silent.
	rigs[0].send(clientHello13())
	p, err := slots.Reserve(silent)
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	for _, r := range rigs {
		r.conn.Abort(errCause)
		_ = r.pump(r.over)
	}
	rigs[0].counts(slots, SlotCounts{})
}

func TestFullQueueRefusesReservations(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1, Queue: 2})
	g, cfg := newGate()
	var rigs []*rig
	for range 3 {
		r := newRig(t, cfg, slots, Options{})
		r.send(clientHello13())
		rigs = append(rigs, r)
	}
	rigs[0].counts(slots, SlotCounts{Computing: 1, Queued: 2})
	if _, err := slots.Reserve(noClient); err != ErrBusy {
		t.Errorf("reserve: %v", err)
	}
	close(g.open)
	eventually(t, "all parked", func() bool { return slots.Stats().Parked == 3 })
	p, err := slots.Reserve(noClient)
	if err != nil {
		t.Fatal(err)
	}
	p.Release()
	for _, r := range rigs {
		r.conn.Abort(errCause)
		r.fails(ReasonClosed)
	}
	rigs[0].counts(slots, SlotCounts{})
}

func TestNoMoreHandshakesComputeThanAllowed(t *testing.T) {
	const limit = 3
	slots := NewSlots(SlotLimits{Computing: limit})
	var now, peak atomic.Int64
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if n := now.Add(1); n > peak.Load() {
			peak.Store(n)
		}
		time.Sleep(time.Millisecond)
		now.Add(-1)
		return nil, nil
	}
	var clients sync.WaitGroup
	for range 100 {
		_, end := startLoop(t, cfg, withSlots(t, slots))
		clients.Go(func() {
			if err := tls.Client(end, tlstest.ClientConfig()).Handshake(); err != nil {
				t.Error(err)
			}
		})
	}
	clients.Wait()
	if p := peak.Load(); p > limit || p < 2 || slots.Stats().Peak.Computing > limit {
		t.Errorf("%d computed at once, %+v", p, slots.Stats())
	}
}

func TestAnswersGoBeforeNewClientHellos(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1})
	half := newRig(t, tlstest.ServerConfig(), slots, Options{})
	flight := make(chan error)
	held := &gatherer{Conn: half.client}
	client := tls.Client(afterHello{held}, tlstest.ClientConfig())
	go func() { flight <- client.Handshake() }()
	_ = half.pump(func() bool { return slots.Stats().Parked == 1 })
	if err := half.pumpWhile(flight); err != nil {
		t.Fatal(err)
	}

	g, cfg := newGate()
	occupant, newcomer := newRig(t, cfg, slots, Options{}), newRig(t, cfg, slots, Options{})
	occupant.send(clientHello13())
	<-g.entered
	newcomer.send(clientHello13()) // first in the queue
	if err := held.release(); err != nil {
		t.Fatal(err)
	}
	_, _ = half.conn.Read(nil) // and the answer behind it
	half.counts(slots, SlotCounts{Computing: 1, Queued: 2})

	occupant.conn.Abort(errCause)
	g.open <- struct{}{} // the occupant ends; the newcomer would stand still
	if err := half.pump(half.over); err != nil {
		t.Fatal(err)
	}
	close(g.open)
	newcomer.conn.Abort(errCause)
	for _, r := range []*rig{occupant, newcomer} {
		r.fails(ReasonClosed)
	}
	half.counts(slots, SlotCounts{})
}

// pumpWhile drives the Conn until done delivers.
func (r *rig) pumpWhile(done <-chan error) error {
	for {
		select {
		case err := <-done:
			return err
		case <-r.kick:
			_, _ = r.conn.Read(nil)
		}
	}
}

func TestPermitServesOneConnOnly(t *testing.T) {
	slots := NewSlots(SlotLimits{})
	p, err := slots.Reserve(noClient)
	if err != nil {
		t.Fatal(err)
	}
	first := newRig(t, tlstest.ServerConfig(), slots, Options{Permit: p})
	p.Release() // a deferred Release after Server has no effect
	first.counts(slots, SlotCounts{Waiting: 1})
	second := newRig(t, tlstest.ServerConfig(), slots, Options{Permit: p})
	if second.fails(ReasonInternal).Err != errPermitUsed {
		t.Error("the permit was used twice")
	}
	first.conn.Abort(nil)
	first.counts(slots, SlotCounts{})
}

func TestConnWithoutPermitTakesADefaultSlot(t *testing.T) {
	_, server := newWire()
	c := Server(&loopLink{end: server}, tlstest.ServerConfig(), Options{})
	if n := DefaultSlots.Stats().Waiting; n != 1 {
		t.Errorf("%d waiting", n)
	}
	c.Abort(nil)

	defer func(s *Slots) { DefaultSlots = s }(DefaultSlots)
	DefaultSlots = NewSlots(SlotLimits{Waiting: 1})
	p, _ := DefaultSlots.Reserve(noClient)
	defer p.Release()
	c = Server(&loopLink{end: server}, tlstest.ServerConfig(), Options{})
	var he *HandshakeError
	if _, err := c.Read(nil); !errors.As(err, &he) || he.Reason != ReasonBusy || !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

func TestPhasesFollowTheirTable(t *testing.T) {
	for from := range phase(phases) {
		for to := range phase(phases) {
			slots := NewSlots(SlotLimits{})
			p := &Permit{slots: slots, lane: &slots.lane, phase: reserved}
			slots.enter(reserved)
			walk := map[phase][]phase{queued: {queued}, computing: {queued, computing}, parked: {queued, computing, parked},
				resuming: {queued, computing, parked, resuming}, over: {over}}[from]
			for _, step := range walk {
				slots.move(p, step)
			}
			legal := successors[from]&(1<<to) != 0
			func() {
				defer func() {
					if (recover() == nil) != legal {
						t.Errorf("%v → %v: legal is %v", from, to, legal)
					}
				}()
				slots.move(p, to)
			}()
		}
	}
}

// Lanes share every bound but the slots: one that is full holds nobody up in another.
func TestLanesComputeSideBySide(t *testing.T) {
	slots := NewSlots(SlotLimits{Computing: 1, Queue: 1})
	g, cfg := newGate()
	in := func(l *Lane) *rig {
		p, err := l.Reserve(noClient)
		if err != nil {
			t.Fatal(err)
		}
		r := newRig(t, cfg, slots, Options{Permit: p})
		r.send(clientHello13())
		return r
	}
	one, two := slots.NewLane(1), slots.NewLane(1)
	rigs := []*rig{in(one), in(two)}
	<-g.entered
	<-g.entered
	rigs[0].counts(slots, SlotCounts{Computing: 2})
	rigs = append(rigs, in(one))
	rigs[0].counts(slots, SlotCounts{Computing: 2, Queued: 1})
	if _, err := two.Reserve(noClient); err != ErrBusy {
		t.Errorf("the queue of all lanes is full: %v", err)
	}
	close(g.open)
	for _, r := range rigs {
		r.conn.Abort(errCause)
		r.fails(ReasonClosed)
	}
	rigs[0].counts(slots, SlotCounts{})
}

// The owner may run the turns itself: nothing else then touches the Conn, and no
// Wake is needed.
func TestTurnsOnTheOwnersGoroutine(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		slots := NewSlots(SlotLimits{})
		lane := slots.NewLane(1)
		p, err := lane.Reserve(noClient)
		if err != nil {
			t.Fatal(err)
		}
		var turns []func()
		r := newRig(t, tlstest.ServerConfig(), slots, Options{Permit: p, Go: func(turn func()) { turns = append(turns, turn) }})
		cfg := tlstest.ClientConfig()
		cfg.MinVersion, cfg.MaxVersion = version, version
		client := tls.Client(r.client, cfg)
		done := make(chan error, 1)
		go func() { done <- client.Handshake() }()
		_ = r.pump(func() bool {
			for len(turns) > 0 {
				turn := turns[0]
				turns = turns[1:]
				turn()
				_, _ = r.conn.Read(nil)
			}
			return r.over()
		})
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		r.counts(slots, SlotCounts{})
	})
}
