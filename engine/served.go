package engine

import (
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Served is a listener that an Engine serves. Its methods may be called from any
// goroutine.
type Served struct {
	eng      *Engine
	listener net.Listener
	now      atomic.Pointer[listener] // for connections to come; those that have come keep theirs
	closed   atomic.Bool
}

// listener is what a Served has served at some time.
type listener struct {
	Listener
	eng   *Engine
	stats *counters
	door  *door // its own, or the engine's
}

// Serve begins to serve l. It fails when the engine is ending; l.Listener is then
// still the caller's.
func (e *Engine) Serve(l Listener) (*Served, error) {
	s := &Served{eng: e, listener: l.Listener}
	s.now.Store(e.settled(l, nil))
	e.servedMu.Lock()
	defer e.servedMu.Unlock()
	if e.at() != running {
		return nil, errors.New("engine: it is ending")
	}
	e.served = append(e.served, s)
	for range acceptorsPerListener {
		e.acceptors.Add(1)
		go s.accept()
	}
	return s, nil
}

// settled is l with its defaults, counters and door: was, if that is still right.
func (e *Engine) settled(l Listener, was *door) *listener {
	l.Limits.setDefaults()
	for linger := int64(l.Limits.Linger); e.linger.Load() < linger; {
		e.linger.Store(linger)
	}
	settled := &listener{Listener: l, eng: e, stats: e.countersOf(l.Name), door: e.door}
	if l.Admission != nil {
		a := *l.Admission
		a.setDefaults()
		settled.door = was
		if was == nil || was == e.door {
			settled.door = newDoor(a)
		}
		settled.door.set(a)
	}
	return settled
}

// Update has the connections to come served as l says. l.Listener is not looked
// at; the one that Serve was given stays.
func (s *Served) Update(l Listener) {
	was := s.now.Load()
	l.Listener = s.listener
	s.now.Store(s.eng.settled(l, was.door))
}

// Listener is the one that is served: for its address.
func (s *Served) Listener() net.Listener { return s.listener }

// Close ends listening. Sessions go on.
func (s *Served) Close() error {
	s.closed.Store(true)
	err := s.listener.Close()
	s.eng.servedMu.Lock()
	defer s.eng.servedMu.Unlock()
	s.eng.served = slices.DeleteFunc(s.eng.served, func(o *Served) bool { return o == s })
	return err
}

// accept takes connections until the listener is closed. Running out of
// descriptors or memory is a reason to wait, never to end.
func (s *Served) accept() {
	defer s.eng.acceptors.Done()
	var pause time.Duration
	for {
		nc, err := s.listener.Accept()
		if err == nil {
			pause = 0
			l := s.now.Load()
			l.stats.accepted.Add(1)
			l.admit(nc)
			continue
		}
		if s.closed.Load() || s.eng.at() != running || errors.Is(err, net.ErrClosed) {
			return
		}
		if errors.Is(err, unix.ECONNABORTED) { // the client's doing
			continue
		}
		s.eng.shortage("accepting", s.now.Load().Name, err)
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		time.Sleep(pause)
	}
}
