package tlsbridge

import (
	"container/list"
	"errors"
	"net/netip"
	"runtime"
	"sync"
)

// Reserve's refusals: the moment to say 454, NO, -ERR or 580 and to go on in plaintext.
var (
	ErrBusy       = errors.New("tlsbridge: too many handshakes")
	ErrClientBusy = errors.New("tlsbridge: too many unfinished handshakes of this client")
)

// DefaultSlots serves the Conns whose Options name no Permit.
var DefaultSlots = NewSlots(SlotLimits{})

// SlotLimits are the bounds of a Slots, all in handshakes. Zero means the default.
type SlotLimits struct {
	Computing int // using a processor at the same time; max(1, GOMAXPROCS-1)
	Queue     int // ready and waiting for a processor before Reserve refuses; 1024
	Waiting   int // permits given to peers whose ClientHello is not complete; 4096
	PerClient int // the part of Waiting that one client may hold; Waiting/8
}

// SlotCounts says how many handshakes are in each state.
type SlotCounts struct {
	Computing int // hold a processor slot
	Queued    int // wait for a processor slot
	Waiting   int // have the go-ahead, but no complete ClientHello yet
	Parked    int // wait for the peer's next flight
}

// SlotStats is a snapshot of a Slots: the present counts, and the highest ones so far.
type SlotStats struct {
	SlotCounts
	Peak SlotCounts
}

// Slots bounds the handshakes of a program: how many compute at once, how many
// wait for their turn, and how many peers may keep us waiting. One Slots is
// meant to be shared by all listeners. Its methods may be called from any goroutine.
type Slots struct {
	limits SlotLimits

	mu      sync.Mutex // a leaf: nothing is called and no other lock taken while it is held
	count   [phases]int
	peak    [phases]int
	clients map[netip.Prefix]int // reserved permits; absent means none
	lane    Lane                 // of Reserve
}

// Lane is one queue for computing slots of its own. All that it counts otherwise
// is shared with the other lanes of its Slots. An event loop that computes
// handshakes itself has a lane with one slot. Its method may be called from any
// goroutine.
type Lane struct {
	slots     *Slots
	most      int // slots
	computing int
	hellos    list.List // of *Permit, queued
	answers   list.List // of *Permit, resuming
}

// NewSlots returns a Slots with these limits.
func NewSlots(o SlotLimits) *Slots {
	orDefault := func(n *int, d int) {
		if *n <= 0 {
			*n = d
		}
	}
	orDefault(&o.Computing, max(1, runtime.GOMAXPROCS(0)-1))
	orDefault(&o.Queue, 1024)
	orDefault(&o.Waiting, 4096)
	orDefault(&o.PerClient, max(1, o.Waiting/8))
	s := &Slots{limits: o, clients: make(map[netip.Prefix]int)}
	s.lane = Lane{slots: s, most: o.Computing}
	return s
}

// NewLane returns a lane in which that many handshakes may compute at once, next
// to the limit of s itself.
func (s *Slots) NewLane(computing int) *Lane { return &Lane{slots: s, most: computing} }

// Reserve is that of the lane with s's own slots.
func (s *Slots) Reserve(client netip.Prefix) (*Permit, error) { return s.lane.Reserve(client) }

// Reserve books a handshake. Call it before the go-ahead of STARTTLS, or when a
// connection that starts with TLS is accepted. It fails with ErrBusy or
// ErrClientBusy; the zero Prefix is exempt from the bound per client.
func (l *Lane) Reserve(client netip.Prefix) (*Permit, error) {
	s := l.slots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[reserved] >= s.limits.Waiting || s.count[queued]+s.count[resuming] >= s.limits.Queue {
		return nil, ErrBusy
	}
	if client.IsValid() {
		if s.clients[client] >= s.limits.PerClient {
			return nil, ErrClientBusy
		}
		s.clients[client]++
	}
	s.enter(reserved)
	return &Permit{slots: s, lane: l, client: client}, nil
}

// Limits returns the bounds in force.
func (s *Slots) Limits() SlotLimits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// SetLimits changes Queue, Waiting and PerClient, those that are not zero, for
// permits to come. Computing stays.
func (s *Slots) SetLimits(o SlotLimits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Queue > 0 {
		s.limits.Queue = o.Queue
	}
	if o.Waiting > 0 {
		s.limits.Waiting, s.limits.PerClient = o.Waiting, max(1, o.Waiting/8)
	}
	if o.PerClient > 0 {
		s.limits.PerClient = o.PerClient
	}
}

// Stats returns the present counts and their peaks.
func (s *Slots) Stats() SlotStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts := func(n *[phases]int) SlotCounts {
		return SlotCounts{Computing: n[computing], Queued: n[queued] + n[resuming], Waiting: n[reserved], Parked: n[parked]}
	}
	return SlotStats{SlotCounts: counts(&s.count), Peak: counts(&s.peak)}
}

// move is the one place that changes a phase. Call it with mu held.
func (s *Slots) move(p *Permit, to phase) {
	if successors[p.phase]&(1<<to) == 0 {
		panic("tlsbridge: a handshake cannot go from " + p.phase.String() + " to " + to.String())
	}
	s.count[p.phase]--
	switch p.phase {
	case reserved:
		if n := s.clients[p.client]; n > 1 {
			s.clients[p.client] = n - 1
		} else {
			delete(s.clients, p.client)
		}
	case queued:
		p.lane.hellos.Remove(p.place)
	case computing:
		p.lane.computing--
	case resuming:
		p.lane.answers.Remove(p.place)
	}
	p.phase = to
	s.enter(to)
	switch to {
	case queued:
		p.place = p.lane.hellos.PushBack(p)
	case computing:
		p.lane.computing++
	case resuming:
		p.place = p.lane.answers.PushBack(p)
	}
}

func (s *Slots) enter(p phase) {
	s.count[p]++
	s.peak[p] = max(s.peak[p], s.count[p])
}

// next gives a free slot to the first in line, or returns nil. Call it with mu
// held, and then grant on the result when no lock is held.
func (l *Lane) next() *Permit {
	first := l.answers.Front() // they hold memory and a coroutine: finish them before starting others
	if first == nil {
		first = l.hellos.Front()
	}
	if first == nil || l.computing >= l.most {
		return nil
	}
	p := first.Value.(*Permit)
	l.slots.move(p, computing)
	return p
}

// A Permit is the right to one handshake. Server takes it over.
type Permit struct {
	slots  *Slots
	lane   *Lane
	client netip.Prefix
	run    func()        // set once, by claim: gives the handshake a turn
	phase  phase         // guarded by slots.mu
	place  *list.Element // in hellos while queued, in answers while resuming
}

// Release gives back a Permit that no Server has taken over; otherwise, and when
// called again, it does nothing.
func (p *Permit) Release() {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	if p.phase == reserved && p.run == nil {
		p.slots.move(p, over)
	}
}

// claim hands the Permit to a handshake. It fails when it was used or released before.
func (p *Permit) claim(run func()) bool {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	if p.phase != reserved || p.run != nil {
		return false
	}
	p.run = run
	return true
}

// ready queues a handshake that was waiting for its peer. It returns whom to grant a slot.
func (p *Permit) ready() *Permit {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	switch p.phase {
	case reserved:
		p.slots.move(p, queued)
	case parked:
		p.slots.move(p, resuming)
	}
	return p.lane.next()
}

// park gives the slot up while the peer's answer is awaited. It returns whom to grant it.
func (p *Permit) park() *Permit {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	p.slots.move(p, parked)
	return p.lane.next()
}

// drop gives up a handshake that holds no slot, and returns the phase it was
// found in. A computing one is left alone: its turn ends it.
func (p *Permit) drop() phase {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	was := p.phase
	if was != computing && was != over {
		p.slots.move(p, over)
	}
	return was
}

// end gives back what is still held. It returns whom to grant the slot.
func (p *Permit) end() *Permit {
	p.slots.mu.Lock()
	defer p.slots.mu.Unlock()
	if p.phase != over {
		p.slots.move(p, over)
	}
	return p.lane.next()
}

// grant gives p its turn, now that it owns a slot. p may be nil.
func (p *Permit) grant() {
	if p != nil {
		p.run()
	}
}
