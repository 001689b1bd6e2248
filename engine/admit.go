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
	mu     sync.Mutex
	limits Admission
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

// set changes the limits. Connections that are in stay in.
func (d *door) set(limits Admission) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if limits.RatePerClient != d.limits.RatePerClient || limits.HandshakesPerClient != d.limits.HandshakesPerClient {
		d.rates.Purge()
	}
	d.limits = limits
}

// fill is how many have entered, and the most there may be.
func (d *door) fill() (open, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.open, d.limits.MaxConnections
}

// clientOf is the unit that per-client limits count: an IPv4 address, an IPv6 /64.
func clientOf(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
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
	if most := d.limits.MaxConnections; most > 0 && d.open >= most {
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
	case d.exempts(client):
		return 0, true
	case !d.ratesOf(client).connections.Allow():
		return ReasonClientRate, false
	case d.perNet[client] >= d.limits.PerClient:
		return ReasonClientConnections, false
	}
	return 0, true
}

// exempts reports whether the limits per client are not for client. Call it with
// mu held.
func (d *door) exempts(client netip.Prefix) bool {
	return client.Addr().IsLoopback() && !d.limits.LimitLoopback
}

// limited is client, or nobody if the limits are not for it.
func (d *door) limited(client netip.Prefix) netip.Prefix {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exempts(client) {
		return netip.Prefix{}
	}
	return client
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
	d.mu.Lock()
	defer d.mu.Unlock()
	if !client.IsValid() || d.exempts(client) {
		return true
	}
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
