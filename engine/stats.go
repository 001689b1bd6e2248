package engine

import "sync/atomic"

// Stats is a snapshot of an Engine's counters.
type Stats struct {
	Accepted    uint64             // connections taken from the listeners
	Ended       [numReasons]uint64 // connections ended or turned away, by Reason
	Open        int64              // admitted and not yet closed
	Lent        int64              // of these, with a goroutine
	Relayed     int64              // of these, with a backend
	Dialed      uint64             // backends reached
	NoBackend   uint64             // backends not reached
	ToBackend   uint64             // bytes on the wire, of backends' connections that have ended
	FromBackend uint64
	Upgrades    uint64 // handshakes that succeeded
	Failed      uint64 // handshakes that did not
	Refused     uint64 // STARTTLS answered with "not now"
	Injected    uint64 // plaintext behind STARTTLS
	Panics      uint64 // recovered panics: each is a bug
	Handshake   HandshakeStats
}

// HandshakeStats counts handshakes under way.
type HandshakeStats struct{ Computing, Queued, Waiting, Parked int }

// EndedBy is the number of connections that ended for r.
func (s *Stats) EndedBy(r Reason) uint64 { return s.Ended[r] }

type counters struct {
	accepted, admitted, upgrades, failed, refused, injected, panics atomic.Uint64
	dialed, dialFailed, toBackend, fromBackend                      atomic.Uint64
	ended                                                           [numReasons]atomic.Uint64
	open, lent, relayed                                             atomic.Int64
}
