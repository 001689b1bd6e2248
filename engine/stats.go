package engine

import (
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// Stats is a snapshot of an Engine's counters.
type Stats struct {
	Counts                        // of all listeners together
	Panics         uint64         // recovered panics: each is a bug
	Handshake      HandshakeStats // under way
	HandshakeLimit HandshakeStats // Computing: one a loop and Handshakes.Computing; Parked: none
	MaxConnections int            // in force, as AutoMaxConnections or Config have it
	WhyMax         string         // what that comes from
	Stressed       bool           // deadlines are shortened
	Stresses       uint64         // times that it came to that
	FilesLimit     int            // descriptors for connections and the files of their sessions
}

// Counts are those of one listener, or of several. Unsigned ones only grow.
type Counts struct {
	Accepted    uint64             // connections taken from the listener
	Ended       [numReasons]uint64 // connections ended or turned away, by Reason
	Open        int64              // admitted and not yet closed
	Plain       int64              // of these, in clear
	Upgrading   int64              // of these, in the handshake
	Secure      int64              // of these, under TLS
	Lent        int64              // of these, with a goroutine
	Relayed     int64              // of these, with a backend
	Dialed      uint64             // backends reached
	NoBackend   uint64             // backends not reached
	ToBackend   uint64             // bytes on the wire; those of a lent pair are counted when it is given back
	FromBackend uint64
	Commands    uint64 // complete commands
	Upgrades    uint64 // handshakes that succeeded
	Resumed     uint64 // of these, by a session ticket
	Failed      uint64 // handshakes that did not
	FailedBy    [tlsbridge.NumReasons]uint64
	Refused     uint64                      // STARTTLS answered with "not now", and implicit TLS that could not be served
	Injected    uint64                      // plaintext behind STARTTLS
	Transfers   [codec.NumDataFaults]uint64 // over data connections, by what has failed; at codec.NoFault those that were complete
}

// EndedBy is the number of connections that ended for r.
func (c *Counts) EndedBy(r Reason) uint64 { return c.Ended[r] }

// TurnedAway is the number of connections that were not let in.
func (c *Counts) TurnedAway() uint64 {
	n := uint64(0)
	for r, ended := range c.Ended {
		if Reason(r).TurnedAway() {
			n += ended
		}
	}
	return n
}

// HandshakeStats counts handshakes under way.
type HandshakeStats struct{ Computing, Queued, Waiting, Parked int }

// ListenerStats are the counts of the listeners of one name, which may have been
// closed, replaced and opened again.
type ListenerStats struct {
	Name string
	Counts
	Handshakes Histogram              // the times that they took, those that succeeded
	Negotiated map[Negotiation]uint64 // by what they have come to
}

// Negotiation is what a handshake has come to.
type Negotiation struct {
	Version uint16
	Cipher  uint16
	Group   tls.CurveID
}

// Histogram counts durations.
type Histogram struct {
	Below []uint64 // by HistogramBounds, cumulative
	Count uint64
	Sum   time.Duration
}

// HistogramBounds are the upper bounds of a Histogram's buckets.
var HistogramBounds = [...]time.Duration{
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// counters are the live Counts of a listener's name. Any goroutine adds to them.
type counters struct {
	accepted, commands, upgrades, resumed, failed, refused, injected atomic.Uint64
	dialed, dialFailed, toBackend, fromBackend                       atomic.Uint64
	ended                                                            [numReasons]atomic.Uint64
	transfers                                                        [codec.NumDataFaults]atomic.Uint64
	failedBy                                                         [tlsbridge.NumReasons]atomic.Uint64
	open, lent, relayed                                              atomic.Int64
	layers                                                           [len(layerNames)]atomic.Int64
	took                                                             [len(HistogramBounds) + 1]atomic.Uint64
	tookSum                                                          atomic.Int64

	mu         sync.Mutex
	negotiated map[Negotiation]uint64 // crypto/tls and the profile bound it
}

// upgraded counts a handshake that has succeeded.
func (n *counters) upgraded(s *tls.ConnectionState, took time.Duration) {
	n.upgrades.Add(1)
	if s.DidResume {
		n.resumed.Add(1)
	}
	i := 0
	for i < len(HistogramBounds) && took > HistogramBounds[i] {
		i++
	}
	n.took[i].Add(1)
	n.tookSum.Add(int64(took))
	n.mu.Lock()
	defer n.mu.Unlock()
	n.negotiated[Negotiation{s.Version, s.CipherSuite, s.CurveID}]++
}

// addTo adds what n holds to c.
func (n *counters) addTo(c *Counts) {
	c.Accepted += n.accepted.Load()
	c.Open += n.open.Load()
	c.Plain += n.layers[plain].Load()
	c.Upgrading += n.layers[upgrading].Load()
	c.Secure += n.layers[secure].Load()
	c.Lent += n.lent.Load()
	c.Relayed += n.relayed.Load()
	c.Dialed += n.dialed.Load()
	c.NoBackend += n.dialFailed.Load()
	c.ToBackend += n.toBackend.Load()
	c.FromBackend += n.fromBackend.Load()
	c.Commands += n.commands.Load()
	c.Upgrades += n.upgrades.Load()
	c.Resumed += n.resumed.Load()
	c.Failed += n.failed.Load()
	c.Refused += n.refused.Load()
	c.Injected += n.injected.Load()
	for i := range n.ended {
		c.Ended[i] += n.ended[i].Load()
	}
	for i := range n.failedBy {
		c.FailedBy[i] += n.failedBy[i].Load()
	}
	for i := range n.transfers {
		c.Transfers[i] += n.transfers[i].Load()
	}
}

func (n *counters) snapshot(name string) ListenerStats {
	s := ListenerStats{Name: name}
	n.addTo(&s.Counts)
	h := &s.Handshakes
	for i := range n.took {
		h.Count += n.took[i].Load()
		if i < len(HistogramBounds) {
			h.Below = append(h.Below, h.Count)
		}
	}
	h.Sum = time.Duration(n.tookSum.Load())
	n.mu.Lock()
	defer n.mu.Unlock()
	s.Negotiated = maps.Clone(n.negotiated)
	return s
}

// countersOf are those of a listener's name. They stay for as long as the engine
// does: a name that comes back goes on where it was.
func (e *Engine) countersOf(name string) *counters {
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	n, ok := e.counts[name]
	if !ok {
		n = &counters{negotiated: make(map[Negotiation]uint64)}
		e.counts[name] = n
	}
	return n
}

// Stats returns a snapshot of the counters. It waits for no event loop.
func (e *Engine) Stats() Stats {
	h := e.slots.Stats()
	s := Stats{
		Panics:    e.panics.Load(),
		Stressed:  e.stressed.Load(),
		Stresses:  e.stresses.Load(),
		Handshake: HandshakeStats{Computing: h.Computing, Queued: h.Queued, Waiting: h.Waiting, Parked: h.Parked},
	}
	limits := e.slots.Limits()
	s.HandshakeLimit = HandshakeStats{Computing: e.cfg.Loops, Queued: limits.Queue, Waiting: limits.Waiting}
	s.MaxConnections, s.WhyMax = e.maxConnections()
	s.FilesLimit = int(e.filesLimit)
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	for _, n := range e.counts {
		n.addTo(&s.Counts)
	}
	return s
}

// Listeners returns a snapshot of the counters of each listener's name, in the
// order of the names. It waits for no event loop.
func (e *Engine) Listeners() []ListenerStats {
	e.servedMu.Lock()
	counts := maps.Clone(e.counts)
	e.servedMu.Unlock()
	all := make([]ListenerStats, 0, len(counts))
	for name, n := range counts {
		all = append(all, n.snapshot(name))
	}
	slices.SortFunc(all, func(a, b ListenerStats) int { return strings.Compare(a.Name, b.Name) })
	return all
}
