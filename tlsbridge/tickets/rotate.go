package tickets

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"
)

// pollTimeout is how long a poll may take.
const pollTimeout = 3 * time.Second

// generation is the number of the one that the clock calls for.
func (r *Ring) generation() int64 { return r.now().UnixNano() / int64(r.rotate) }

// start is when generation n begins.
func (r *Ring) start(n int64) time.Time { return time.Unix(0, n*int64(r.rotate)) }

// turn has every generation begin in time. It looks at the clock at least once a poll,
// because clocks are set, and stand still while a machine sleeps.
func (r *Ring) turn(ctx context.Context) {
	for {
		wait := r.start(r.generation() + 1).Sub(r.now())
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, r.every)):
		}
		r.advance()
	}
}

func (r *Ring) advance() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.install(r.generation())
}

// watch polls the store.
func (r *Ring) watch(ctx context.Context) {
	failures := 0
	for {
		told := false
		select {
		case <-ctx.Done():
			return
		case <-r.reload:
			told = true
		case <-time.After(r.pause(failures)):
		}
		if r.poll(ctx, told) {
			failures = 0
		} else {
			failures++
		}
	}
}

// pause is how long to wait for the next poll after so many have failed in a row: longer
// each time, but never longer than usual. Nodes do not poll in step.
func (r *Ring) pause(failures int) time.Duration {
	pause := r.every
	if failures > 0 {
		pause = min(pause, pause/32<<min(failures, 5))
	}
	return pause - pause/10 + rand.N(pause/5+1)
}

// poll asks the store, and reports whether it answered. It logs the first failure in a row,
// and any that somebody waits to be told about.
func (r *Ring) poll(ctx context.Context, told bool) bool {
	r.mu.Lock()
	n, held := r.generation(), r.hand.copies()
	r.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, pollTimeout)
	apply, err := r.store.poll(limited, n, held)
	cancel()
	if ctx.Err() != nil {
		return false // the ring is being closed
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.err != nil
	r.err = err
	if apply != nil {
		apply(&r.hand, r.generation())
	}
	r.install(r.generation())
	switch {
	case err != nil && (told || !failed):
		r.log.Warn("session ticket keys cannot be read: those in hand stay, more attempts follow",
			"err", err, "shared", r.hand.current.shared)
	case err == nil && failed:
		r.log.Info("session ticket keys can be read again")
	}
	return err == nil
}

// install makes generation n the current one, as far as the store has it, and gives the
// keys to all that is served.
func (r *Ring) install(n int64) {
	r.store.turn(&r.hand, n)
	r.hand.choose(n)
	r.report(n)
	keys := r.hand.secrets()
	if slices.Equal(keys, r.keys) {
		return
	}
	r.keys = keys
	r.served = slices.DeleteFunc(r.served, func(s served) bool {
		cfg := s.cfg.Value()
		if cfg != nil {
			cfg.SetSessionTicketKeys(scoped(keys, s.scope))
		}
		return cfg == nil
	})
}

// report logs once that tickets are made with the key of a generation that is over, and
// once that they no longer are.
func (r *Ring) report(n int64) {
	switch late := r.hand.gen < n; {
	case late && !r.overdue && r.err != nil:
		r.overdue = true
		r.log.Warn("SESSION TICKET KEYS DO NOT ROTATE: the next one is not to be had, the last known one stays in use",
			"err", r.err, "since", r.start(n))
	case !late && r.overdue:
		r.overdue = false
		r.log.Info("session ticket keys rotate again")
	}
}
