package engine

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
)

// carriage is what the two goroutines of a lent pair share. Its lock guards the
// session and all of the relay but the streams: each goroutine reads one of them
// and writes the other. While there is a dialogue, the client's is written to with
// the lock held, because both do.
type carriage struct {
	mu    sync.Mutex
	moved sync.Cond // hold was lifted, or over was set
	over  bool      // both goroutines have to stop
	asked bool      // all that the client will ever say was passed on
	still int       // directions in which nothing has come for a moment
	ways  [2]*way
	gone  bool // both goroutines have stopped
}

// way is one direction of a lent pair, and its goroutine's.
type way struct {
	r     *relay
	from  *stream
	to    *stream
	pass  func(data []byte) (rest []byte, err error) // gives data on, as far as it makes frames
	end   func() error                               // from has ended: tell to; nil: not yet, because of a transfer
	ended *bool                                      // it has
	buf   *[]byte                                    // of more; nil while there is nothing in it
	out   []byte                                     // of the session, for the client
	up    []byte                                     // of the session, for the backend
	still bool
	again bool // what is there has to be looked at once more; guarded by the carriage's lock
}

// What ends a way besides the failure of a stream.
var (
	errStop    = errors.New("stopped")                  // over is set, or this direction has ended in good order
	errOverdue = errors.New("idle for too long")        // see patience
	errDone    = errors.New("the session has ended")    // by a Close
	errEnded   = errors.New("both directions ended")    // or nothing is owed to the client that ended its own
	errBackend = errors.New("writing to the backend")   // wraps the cause
	errClient  = errors.New("writing to the client")    // wraps the cause
	errUpgrade = errors.New("STARTTLS is for the loop") // nothing is lost
	errAgain   = errors.New("poked")                    // pass what is there once more
)

// carry passes bytes on, waiting, until both directions are still or the session is
// over. It is a lent pair's work, on the goroutine that the pair was lent to.
func (r *relay) carry() {
	c := r.c
	l := &carriage{}
	l.moved.L = &l.mu
	c.move, r.hold = stay, false
	up := &way{r: r, from: &c.stream, to: &r.stream, ended: &r.upEnded}
	up.pass, up.end = up.passUp, r.endUp
	down := &way{r: r, from: &r.stream, to: &c.stream, ended: &r.downEnded}
	down.pass, down.end = down.passDown, r.endDown
	l.ways = [...]*way{up, down}
	r.setLent(l)
	for _, l := range []*link{&c.link, &r.link} {
		l.mayStall(c.lst.Limits.BodyStall)
	}
	done := make(chan struct{})
	c.lst.eng.spawn(func() {
		defer close(done)
		down.run()
	})
	up.run()
	<-done
	l.mu.Lock() // from poke
	l.gone = true
	l.mu.Unlock()
	r.setLent(nil)
	c.link.off.stall.Store(0)
}

func (r *relay) setLent(l *carriage) {
	e := r.c.lst.eng
	e.lentMu.Lock() // for poke
	defer e.lentMu.Unlock()
	r.lent = l
}

// poke has both goroutines call the session again, with what is there. It may wait.
func (l *carriage) poke(r *relay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone { // the sockets may be too, and who has the pair looks by himself
		return
	}
	l.lookAgain()
	r.hold = false
	l.moved.Broadcast()
	r.progress()
	r.c.link.interrupt(false)
	r.link.interrupt(false)
}

// lookAgain has both ways pass what is there once more. Called with the lock held.
func (l *carriage) lookAgain() {
	for _, w := range l.ways {
		w.again = true
	}
}

// run carries until there is a reason not to, and sees to what follows from it.
func (w *way) run() {
	defer func() {
		if v := recover(); v != nil {
			w.r.finish(ReasonPanic, nobody)
			w.r.c.lst.eng.panicked(w.r.c.peer.ID, v)
		}
	}()
	defer w.free()
	r := w.r
	err := w.carry()
	switch {
	case errors.Is(err, errStop):
	case errors.Is(err, errUpgrade):
		r.lent.mu.Lock()
		r.stop()
		r.lent.mu.Unlock()
	case errors.Is(err, errDone):
		r.finish(ReasonDone, nobody)
	case errors.Is(err, errEnded):
		r.finish(ReasonPeerClosed, nobody)
	case errors.Is(err, errDraining):
		r.finish(ReasonDrained, codec.Draining)
	case errors.Is(err, errOverdue):
		r.lent.mu.Lock()
		_, why, words := r.patience()
		r.lent.mu.Unlock()
		r.finish(why, words)
	case errors.Is(err, errBackend):
		r.backendFailed(err)
	case errors.Is(err, errClient):
		r.cutShort(r.unread(err), nobody)
	case w.from == &r.stream: // errLost as well
		r.cutShort(ReasonBackendLost, codec.Unavailable)
	case errors.Is(err, io.ErrUnexpectedEOF): // without close_notify: nothing that is owed can be said
		r.cutShort(ReasonPeerClosed, nobody)
	default:
		why := ReasonTLSError
		if errno := syscall.Errno(0); w.from.tls == nil || errors.As(err, &errno) {
			why = ReasonReset
		}
		r.cutShort(why, nobody)
	}
}

func (w *way) carry() error {
	if _, err := w.to.link.put(nil); err != nil {
		return w.writing(err)
	}
	data := w.from.join(nil)
	defer func() { w.from.keep(data) }()
	for {
		var err error
		if data, err = w.pass(data); err != nil {
			return err
		}
		if *w.ended {
			if err = w.end(); err != nil {
				return err
			}
		}
		switch data, err = w.more(data); {
		case errors.Is(err, errAgain):
		case errors.Is(err, io.EOF):
			if err = w.end(); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// more waits for input and returns rest, which it may move, with what has come
// behind it.
func (w *way) more(rest []byte) ([]byte, error) {
	if len(rest) == 0 {
		release(&w.from.in)
	}
	for {
		if err := w.wait(len(rest)); err != nil {
			return rest, err
		}
		if w.buf == nil {
			w.buf = getBody()
		}
		buf := *w.buf
		n := copy(buf, rest)
		release(&w.from.in)
		rest = buf[:n]
		m, err := w.from.read(buf[n:])
		switch {
		case m > 0:
			return buf[:n+m], nil
		case err == nil, errors.Is(err, tlsbridge.ErrWouldBlock), errors.Is(err, os.ErrDeadlineExceeded):
		default:
			return rest, w.ends(err)
		}
	}
}

// ends is err, or io.EOF if it makes no difference how a backend has ended: what it has
// said last is here, and waits for a transfer.
func (w *way) ends(err error) error {
	if w.from == &w.r.stream && w.r.held && !*w.ended {
		return io.EOF
	}
	return err
}

// wait returns nil when there is something to read. kept is what buf has to keep:
// without it, there is no buffer while nothing comes.
func (w *way) wait(kept int) error {
	r, e, link := w.r, w.r.c.lst.eng, &w.from.link
	for {
		until := e.now() + moment
		if w.still {
			r.lent.mu.Lock()
			until = r.due
			r.lent.mu.Unlock()
		}
		_ = link.off.tc.SetReadDeadline(e.deadline(until))
		// Behind the deadline: who interrupts says first what for.
		if err := w.mayStay(); err != nil {
			return err
		}
		var err error
		switch {
		case *w.ended:
			err = link.rest()
		case w.from.tls == nil || w.from.tls.Buffered() == 0:
			err = link.await()
		}
		if err == nil {
			return w.stirs()
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return w.ends(err)
		}
		if kept == 0 {
			w.free()
		}
		if err := w.rests(); err != nil {
			return err
		}
	}
}

func (w *way) mayStay() error {
	l := w.r.lent
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
		return errStop
	case w.again:
		w.again = false
		return errAgain
	case w.r.c.lst.eng.at() >= farewells:
		return errDraining
	case w.r.overdue(w.r.c.lst.eng.now()): // also where a trickle never lets it rest
		return errOverdue
	}
	return nil
}

// stirs: something has come. A record that is not whole soon is waited for anew.
func (w *way) stirs() error {
	e, l := w.r.c.lst.eng, w.r.lent
	if !w.still {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	w.still = false
	l.still--
	_ = w.from.link.off.tc.SetReadDeadline(e.deadline(e.now() + moment))
	if l.over {
		w.from.link.interrupt(false)
	}
	return nil
}

// rests: nothing has come for a moment. When that is so in both directions, the
// pair belongs on its loop.
func (w *way) rests() error {
	r, l := w.r, w.r.lent
	if err := w.mayStay(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.still {
		return nil
	}
	w.still = true
	if l.still++; l.still == 2 && !r.upEnded && !r.downEnded {
		r.stop()
		return errStop
	}
	return nil
}

func (w *way) free() {
	if w.buf != nil {
		putBody(w.buf)
		w.buf = nil
	}
}
