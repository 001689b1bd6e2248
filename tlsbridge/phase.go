package tlsbridge

// phase is where a handshake stands. Every change goes through Slots.move.
type phase uint8

const (
	reserved  phase = iota // the go-ahead is given, the ClientHello not complete → queued, over
	queued                 // the ClientHello waits for a slot → computing, over
	computing              // it has a turn, and holds a slot → parked, over
	parked                 // it waits for the peer's answer → resuming, over
	resuming               // the answer waits for a slot, before every queued ClientHello → computing, over
	over                   // finished, failed or given up
	phases    = iota
)

var phaseNames = [phases]string{"reserved", "queued", "computing", "parked", "resuming", "over"}

func (p phase) String() string { return phaseNames[p] }

// successors has bit p set where p may follow.
var successors = [phases]uint8{
	reserved:  1<<queued | 1<<over,
	queued:    1<<computing | 1<<over,
	computing: 1<<parked | 1<<over,
	parked:    1<<resuming | 1<<over,
	resuming:  1<<computing | 1<<over,
}
