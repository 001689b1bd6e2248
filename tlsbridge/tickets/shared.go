package tickets

import (
	"context"
	"slices"
	"time"
)

// ledger is where nodes agree on secrets.
type ledger interface {
	// read returns the secrets of each of the generations from first to last: that which
	// is agreed on, and then others that nodes use. There are none if none is agreed on.
	read(ctx context.Context, first, last int64) (map[int64][]secret, error)
	// write proposes a secret for generation g, which is agreed on if there is no other,
	// and adds some that this node uses.
	write(ctx context.Context, g int64, proposed secret, also []secret) error
	close()
}

// shared is the store of nodes that have a ledger in common.
type shared struct {
	ledger
	// ripening is for how long a secret has to be in the ledger before tickets are made
	// with it: twice the time in which every other node reads the ledger.
	ripening time.Duration
	// sound is since when all polls have succeeded, zero if the last one did not.
	sound time.Time
}

func newShared(l ledger, every time.Duration) *shared {
	return &shared{ledger: l, ripening: 2 * every}
}

func (s *shared) kind() string  { return "redis" }
func (s *shared) changes() bool { return true }

// turn makes secrets only for a node that has none: one that starts without the ledger.
// Old ones are kept while it is away, and until all nodes have had the time to find
// newer ones in it and to let them ripen: others may still make tickets with them.
func (s *shared) turn(h *hand, n int64) {
	if h.gen > n+1 || h.current == nil && len(h.gens[n]) == 0 {
		h.own(n)
	}
	if !s.sound.IsZero() && time.Since(s.sound) >= 3*s.ripening {
		h.keep(n)
	}
	h.bound(n)
}

// rounds is how many times a poll reads the ledger: to know what there is, to see what
// came of its proposals, and to see that its own secrets are there beside those of others.
const rounds = 3

// poll brings the ledger and what is held together. A generation that nobody has a secret
// for gets one, unless it has long been over: the one before is current on a node that has
// just started too, and whose clock is behind.
func (s *shared) poll(ctx context.Context, n int64, held map[int64][]secret) (func(*hand, int64), error) {
	var found map[int64][]secret
	for round := range rounds {
		var err error
		if found, err = s.read(ctx, n-past, n+1); err != nil {
			return s.interrupted, err
		}
		if round == rounds-1 {
			break
		}
		wrote, err := s.publish(ctx, n, found, held)
		if err != nil {
			return s.interrupted, err
		}
		if !wrote {
			break
		}
	}
	return func(h *hand, _ int64) { s.learn(h, found) }, nil
}

// publish writes what the ledger lacks.
func (s *shared) publish(ctx context.Context, n int64, found, held map[int64][]secret) (wrote bool, err error) {
	for g := n - past; g <= n+1; g++ {
		var proposed secret
		missing := slices.DeleteFunc(slices.Clone(held[g]), func(own secret) bool { return slices.Contains(found[g], own) })
		missing = missing[:min(len(missing), maxSecrets-len(found[g]))]
		switch {
		case len(found[g]) > 0 && len(missing) == 0:
			continue
		case len(found[g]) > 0:
			proposed = found[g][0]
		case len(missing) > 0:
			proposed, missing = missing[0], missing[1:]
		case g >= n-1:
			proposed = newSecret()
		default:
			continue
		}
		if err := s.write(ctx, g, proposed, missing); err != nil {
			return wrote, err
		}
		wrote = true
	}
	return wrote, nil
}

// learn takes what was found in the ledger into the hand.
func (s *shared) learn(h *hand, found map[int64][]secret) {
	now := time.Now()
	if s.sound.IsZero() {
		s.sound = now
	}
	for g, secrets := range found {
		if len(secrets) == 0 {
			continue
		}
		list := make([]*held, 0, len(secrets))
		for _, one := range secrets {
			list = append(list, h.take(g, one))
		}
		for _, known := range list {
			known.shared = true
			if known.seen.IsZero() {
				known.seen = now
			}
			known.ripe = known.ripe || now.Sub(known.seen) >= s.ripening
		}
		rest := h.gens[g] // what take has left
		for _, own := range rest {
			own.seen = time.Time{}
		}
		list = append(list, rest...)
		h.gens[g] = list[:min(len(list), maxSecrets)]
	}
}

// take removes one from generation g, and returns it, or makes it if it is new.
func (h *hand) take(g int64, one secret) *held {
	i := slices.IndexFunc(h.gens[g], func(known *held) bool { return known.secret == one })
	if i < 0 {
		return &held{secret: one}
	}
	known := h.gens[g][i]
	h.gens[g] = slices.Delete(h.gens[g], i, i+1)
	return known
}

// interrupted begins the ripening anew: other nodes may not have read the ledger before it
// went away.
func (s *shared) interrupted(h *hand, _ int64) {
	s.sound = time.Time{}
	for _, list := range h.gens {
		for _, known := range list {
			known.seen = time.Time{}
		}
	}
}
