package tickets

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"maps"
	"slices"
	"time"
)

const (
	// past is how many generations before the current one are still opened.
	past = 2
	// maxSecrets of one generation are known. More than one there are only when nodes
	// started without Redis, or it lost its data.
	maxSecrets = 16
	// maxGenerations are known, four of them as long as all is well.
	maxGenerations = 12
)

// secret is one of a generation, from which the keys of all scopes come.
type secret [32]byte

func newSecret() (s secret) {
	_, _ = rand.Read(s[:]) // never fails
	return s
}

// derive returns a secret that says nothing about others from the same source.
func derive(from []byte, info string) secret {
	s, err := hkdf.Key(sha256.New, from, nil, info, len(secret{}))
	if err != nil {
		panic(err) // from is too short for FIPS 140: all are of 32 bytes or more
	}
	return secret(s)
}

// scoped returns the keys of scope in the same order.
func scoped(secrets []secret, scope string) [][32]byte {
	keys := make([][32]byte, len(secrets))
	for i, s := range secrets {
		keys[i] = derive(s[:], "starttlsd session ticket key: "+scope)
	}
	return keys
}

// held is a secret and how well it is known to others.
type held struct {
	secret
	shared bool      // other nodes can have it
	ripe   bool      // they do, so tickets may be made with it
	seen   time.Time // since when it was found in the store at every poll; zero if not
}

// hand is what a node knows. In each generation the first secret is the one that all
// nodes agree on; the others only open tickets.
type hand struct {
	gens    map[int64][]*held
	current *held // makes tickets
	gen     int64 // of current
}

// choose makes current the ripe secret of the newest generation up to n. It leaves
// current alone if that is still the best there is, however late. A hand without
// current takes what it has, and has to have something.
func (h *hand) choose(n int64) {
	if h.gen > n+1 { // the clock was set back
		h.current = nil
	}
	for _, g := range slices.Backward(slices.Sorted(maps.Keys(h.gens))) {
		if g > n || h.current != nil && g < h.gen {
			continue
		}
		if first := h.gens[g][0]; first.ripe || h.current == nil {
			h.current, h.gen = first, g
			return
		}
	}
}

// keep drops all generations but those that matter in n. The current secret stays even so.
func (h *hand) keep(n int64) {
	maps.DeleteFunc(h.gens, func(g int64, _ []*held) bool { return g < n-past || g > n+1 })
}

// bound drops what there would be too much of if keep were never called, because the store
// is never there for long: what a clock that was ahead called for, and the oldest.
func (h *hand) bound(n int64) {
	maps.DeleteFunc(h.gens, func(g int64, _ []*held) bool { return g > n+1 })
	known := slices.Sorted(maps.Keys(h.gens))
	for _, g := range known[:max(0, len(known)-maxGenerations)] {
		delete(h.gens, g)
	}
}

// own makes sure of secrets for generation n and the next: random ones, that nobody else has.
func (h *hand) own(n int64) {
	for g := n; g <= n+1; g++ {
		if len(h.gens[g]) == 0 {
			h.gens[g] = []*held{{secret: newSecret(), ripe: true}}
		}
	}
}

// secrets returns all, the current one first and then the newest ones.
func (h *hand) secrets() []secret {
	all := []secret{h.current.secret}
	for _, g := range slices.Backward(slices.Sorted(maps.Keys(h.gens))) {
		for _, s := range h.gens[g] {
			if !slices.Contains(all, s.secret) {
				all = append(all, s.secret)
			}
		}
	}
	return all
}

// copies returns all by generation.
func (h *hand) copies() map[int64][]secret {
	all := make(map[int64][]secret, len(h.gens))
	for g, list := range h.gens {
		for _, s := range list {
			all[g] = append(all[g], s.secret)
		}
	}
	return all
}
