package engine

import (
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// rateTable bounds the clients whose rates are remembered; the least recently
// seen is forgotten first.
const rateTable = 1 << 16

// door decides who may come in. Safe for concurrent use.
type door struct {
	limits Admission
	mu     sync.Mutex
	open   int
	perNet map[netip.Prefix]int // open connections a client; as large as open at most
	rates  *lru.Cache[netip.Prefix, *clientRates]
}

type clientRates struct{ connections, handshakes *rate.Limiter }

func newDoor(limits Admission) *door {
	rates, err := lru.New[netip.Prefix, *clientRates](rateTable)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &door{limits: limits, perNet: make(map[netip.Prefix]int), rates: rates}
}

// client is the unit that per-client limits count: an IPv4 address, an IPv6 /64.
// The zero Prefix is exempt.
func (d *door) client(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() && !d.limits.LimitLoopback {
		return netip.Prefix{}
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// enter admits a connection, or says why not. One that entered leaves once.
func (d *door) enter(client netip.Prefix) (Reason, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if client.IsValid() {
		if reason, ok := d.admits(client); !ok {
			return reason, false
		}
	}
	if d.open >= d.limits.MaxConnections {
		return ReasonMaxConnections, false
	}
	d.open++
	if client.IsValid() {
		d.perNet[client]++
	}
	return 0, true
}

// identify counts a connection that entered as nobody's for the client that it
// turned out to be, or says why not: then it stays nobody's.
func (d *door) identify(client netip.Prefix) (Reason, bool) {
	if !client.IsValid() {
		return 0, true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if reason, ok := d.admits(client); !ok {
		return reason, false
	}
	d.perNet[client]++
	return 0, true
}

// admits applies the limits of one client.
func (d *door) admits(client netip.Prefix) (Reason, bool) {
	switch {
	case !d.ratesOf(client).connections.Allow():
		return ReasonClientRate, false
	case d.perNet[client] >= d.limits.PerClient:
		return ReasonClientConnections, false
	}
	return 0, true
}

func (d *door) leave(client netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open--
	if !client.IsValid() {
		return
	}
	if d.perNet[client]--; d.perNet[client] == 0 {
		delete(d.perNet, client)
	}
}

// mayHandshake takes one from the client's rate of new TLS handshakes.
func (d *door) mayHandshake(client netip.Prefix) bool {
	if !client.IsValid() {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ratesOf(client).handshakes.Allow()
}

func (d *door) ratesOf(client netip.Prefix) *clientRates {
	r, ok := d.rates.Get(client)
	if !ok {
		r = &clientRates{
			connections: perMinute(d.limits.RatePerClient),
			handshakes:  perMinute(d.limits.HandshakesPerClient),
		}
		d.rates.Add(client, r)
	}
	return r
}

func perMinute(n int) *rate.Limiter {
	return rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)), n)
}
