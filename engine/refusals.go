package engine

import (
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// refusalTable bounds the refusals that are remembered.
const refusalTable = 128

// Refusal is what was refused to one client at one listener for one reason.
type Refusal struct {
	Client   netip.Prefix // an IPv4 address or an IPv6 /64
	Listener string
	Reason   string // a Reason's name, or tls_unavailable
	Count    uint64 // since it was remembered
	Last     time.Time
}

type refusalKey struct {
	client           netip.Prefix
	listener, reason string
}

// refusals remembers the latest. Safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	table *lru.Cache[refusalKey, *Refusal]
}

func newRefusals() *refusals {
	table, err := lru.New[refusalKey, *Refusal](refusalTable)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &refusals{table: table}
}

func (r *refusals) add(a netip.Addr, listener, reason string) {
	key := refusalKey{clientOf(a), listener, reason}
	r.mu.Lock()
	defer r.mu.Unlock()
	entry, ok := r.table.Get(key)
	if !ok {
		entry = &Refusal{Client: key.client, Listener: listener, Reason: reason}
		r.table.Add(key, entry)
	}
	entry.Count++
	entry.Last = time.Now()
}

// Refusals returns what was refused lately, by client, the latest first.
func (e *Engine) Refusals() []Refusal {
	r := e.refusals
	r.mu.Lock()
	defer r.mu.Unlock()
	entries := r.table.Values() // the oldest first
	all := make([]Refusal, 0, len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		all = append(all, *entries[i])
	}
	return all
}
