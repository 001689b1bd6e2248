package tlsbridge

import (
	"crypto/tls"
	"sync"
)

// Waiter is a Link whose owner may wait for it. Its Read does not wait all the
// same: it returns (0, ErrWouldBlock) when nothing is there, and io.EOF at the
// end. Its Write may wait, for as long as the owner lets it.
type Waiter interface {
	Link
	// Await returns when Read has something to tell, be it the end, or when
	// Interrupt was called. It may also return for no reason.
	Await() error
	// Interrupt has the Await that runs return, or else the next one. It is
	// called from any goroutine, and does not block.
	Interrupt()
}

// Accept returns the server's end of a TLS connection over l. It does the
// handshake on the calling goroutine, and returns when that is over, with
// nothing left running; an error is a *HandshakeError, and its alert is with l. The
// handshake counts in its Slots as any other: it waits for a slot there, and holds
// none while it waits for the peer or writes.
//
// Of o, Go and Wake are not used. Timeout ends all waiting but that of a Write. When
// Await fails the handshake is given up with its error, as by Abort. A callback
// that calls runtime.Goexit ends the calling goroutine.
//
// Next to nothing is read from l beyond the handshake, however much the client
// sends; what was read is for the Conn's first Reads. The Conn goes on over l, or
// over what SetLink gives it, and l is not interrupted any more.
func Accept(l Waiter, cfg *tls.Config, o Options) (*Conn, error) {
	a := &acceptor{link: l, turns: make(chan func(), 1), woken: make(chan struct{}, 1)}
	o.Go, o.Wake, o.sparing = a.grant, a.wake, true
	c := Server(l, cfg, o)
	for {
		switch _, err := c.Read(nil); {
		case err == nil:
			return c, nil
		case err != ErrWouldBlock:
			return nil, err
		case !c.hs.Load().needsPeer():
			a.next()
		default:
			if err := a.await(); err != nil {
				c.Abort(err)
			}
		}
	}
}

// acceptor brings what other goroutines have for a handshake to the one in Accept:
// who gives up a slot grants a turn, and the Timeout wakes.
type acceptor struct {
	link  Waiter
	turns chan func()   // the turn that was granted: there is one at a time
	woken chan struct{} // holds a token when Read was to be called and nobody awaited it

	mu       sync.Mutex // a leaf, but for Interrupt
	awaiting bool
}

// grant is called by whoever gives up the slot, and must not wait. It need not
// interrupt: who is to have a turn is in next, or on the way there.
func (a *acceptor) grant(turn func()) { a.turns <- turn }

func (a *acceptor) wake() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.awaiting {
		a.link.Interrupt()
		return
	}
	select {
	case a.woken <- struct{}{}:
	default:
	}
}

// next runs the turn that is to come, unless the handshake ends without one.
func (a *acceptor) next() {
	select {
	case turn := <-a.turns:
		turn()
	case <-a.woken:
	}
}

// await waits for the peer, unless Read was to be called meanwhile.
func (a *acceptor) await() error {
	a.mu.Lock()
	a.awaiting = len(a.woken) == 0
	a.mu.Unlock()
	if !a.awaiting {
		<-a.woken
		return nil
	}
	err := a.link.Await()
	a.mu.Lock()
	a.awaiting = false
	a.mu.Unlock()
	return err
}
