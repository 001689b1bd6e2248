package tickets

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"weak"
)

const (
	defaultRotate = 12 * time.Hour
	minRotate     = time.Second

	maxPoll = time.Minute
)

// Options are those of Open.
type Options struct {
	// Keys is where the secrets come from: auto, which "" means too, file:PATH, or
	// redis:// or rediss:// [user:password@]host[:port][/db].
	Keys string
	// Rotate is how long new tickets are made with one key, 12 hours if 0. It has to be
	// the same on all nodes. Less than a minute is for tests: a poll may take longer than
	// nodes would then wait for each other.
	Rotate time.Duration
	Log    *slog.Logger     // slog.Default() if nil
	Now    func() time.Time // time.Now if nil
}

// Ring keeps the session ticket keys of any number of tls.Configs. Its methods may be
// called from any goroutine; none of them waits for a store.
type Ring struct {
	store  store
	rotate time.Duration
	every  time.Duration // between polls of the store
	now    func() time.Time
	log    *slog.Logger

	reload chan struct{} // holds a token when the store is to be polled at once
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu      sync.Mutex
	hand    hand
	keys    []secret // as installed, the encrypting one first
	served  []served
	err     error // of the last poll
	overdue bool  // the generation of the clock is not had, and that was logged
}

// served is a tls.Config for as long as anybody else has it.
type served struct {
	scope string
	cfg   weak.Pointer[tls.Config]
}

// store is where the secrets of generations come from. Its methods but poll are called
// with the ring's lock.
type store interface {
	kind() string
	// turn puts into h what generation n needs and can be had at once, and drops from h
	// what is too old.
	turn(h *hand, n int64)
	// poll asks what is stored, and is given a copy of what is held. What it returns, if
	// anything, is called with the lock, and is followed by turn.
	poll(ctx context.Context, n int64, held map[int64][]secret) (apply func(h *hand, n int64), err error)
	// changes reports whether there is anything to poll.
	changes() bool
	// close ends a poll too.
	close()
}

// Open returns a ring, which is to be closed. An error is one in o, or that of a file. A
// Redis that cannot be reached is none; waiting for it ends after three seconds.
func Open(o Options) (*Ring, error) {
	if o.Rotate == 0 {
		o.Rotate = defaultRotate
	}
	if o.Rotate < minRotate {
		return nil, fmt.Errorf("session ticket keys cannot rotate every %v: %v is the least", o.Rotate, minRotate)
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	st, err := openStore(o)
	if err != nil {
		return nil, err
	}
	return open(o, st), nil
}

func openStore(o Options) (store, error) {
	path, isFile := strings.CutPrefix(o.Keys, "file:")
	switch {
	case o.Keys == "" || o.Keys == "auto":
		return auto{}, nil
	case isFile:
		return openFile(path, o.Rotate, o.Log)
	case strings.HasPrefix(o.Keys, "redis:"), strings.HasPrefix(o.Keys, "rediss:"):
		db, err := openRedis(o.Keys, o.Rotate)
		if err != nil {
			return nil, err
		}
		return newShared(db, pollInterval(o.Rotate)), nil
	default: // it may hold a password
		return nil, errors.New("session ticket keys are to be auto, file:PATH, redis://HOST:PORT/DB or rediss://HOST:PORT/DB")
	}
}

func pollInterval(rotate time.Duration) time.Duration { return min(rotate/10, maxPoll) }

// open starts a ring on st.
func open(o Options, st store) *Ring {
	r := &Ring{
		store:  st,
		rotate: o.Rotate,
		every:  pollInterval(o.Rotate),
		now:    o.Now,
		log:    o.Log.With("keys", st.kind()),
		reload: make(chan struct{}, 1),
		hand:   hand{gens: make(map[int64][]*held)},
	}
	if r.now == nil {
		r.now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	if st.changes() {
		r.poll(ctx, false)
		r.tasks.Go(func() { r.watch(ctx) })
	} else {
		r.advance()
	}
	r.tasks.Go(func() { r.turn(ctx) })
	return r
}

// Serve sets the session ticket keys of cfg, now and whenever they change, for as long as
// cfg is in use and r is open. A Clone of cfg has to be served on its own. The scope is
// what sessions are to be confined to.
func (r *Ring) Serve(scope string, cfg *tls.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := weak.Make(cfg)
	r.served = slices.DeleteFunc(r.served, func(s served) bool { return s.cfg == p || s.cfg.Value() == nil })
	r.served = append(r.served, served{scope, p})
	cfg.SetSessionTicketKeys(scoped(r.keys, scope))
}

// Reload looks at the file or into Redis at once. What is wrong is logged, even if it was before.
func (r *Ring) Reload() {
	select {
	case r.reload <- struct{}{}:
	default:
	}
}

// Close ends the rotation. What was served keeps the keys that it has. A second call does nothing.
func (r *Ring) Close() {
	r.cancel()
	r.store.close() // ends a poll
	r.tasks.Wait()
}

// Status is the state of a ring.
type Status struct {
	Store      string    // auto, file or redis
	Generation int64     // that of the key of new tickets
	Due        int64     // that of the clock: the same, but while the store cannot be used
	Next       time.Time // when the clock calls for the next
	Shared     bool      // other nodes can have the key of new tickets
	Err        error     // why the store could not be used when last asked
}

// Status returns the state of r.
func (r *Ring) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.generation()
	return Status{
		Store:      r.store.kind(),
		Generation: r.hand.gen,
		Due:        n,
		Next:       r.start(n + 1),
		Shared:     r.hand.current.shared,
		Err:        r.err,
	}
}
