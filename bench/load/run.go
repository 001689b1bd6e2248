// Package load is a client for servers with STARTTLS: it upgrades, chats, holds
// and delivers, and measures what that takes.
//
//	target, err := load.ParseTarget("smtp://127.0.0.1:2525")
//	result, err := load.Run(ctx, load.Options{Target: target, Operations: 1000})
//
// A run is a closed loop, in which every connection does one operation after the
// other, or an open one, in which operations are due at a rate and their latency
// counts from when they were due, so that a server that stalls cannot hide it.
//
// It is made to share a machine with the server: a goroutine a connection that
// works, none for one that is idle.
package load

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// run is what the goroutines of one Run share.
type run struct {
	ctx     context.Context
	o       Options
	tls     *tls.Config
	address netip.AddrPort
	spread  bool
	meter   *meter // nil: nothing is measured
	behind  *meter // of what is behind the server; nil as well
	rec     recorder

	dials atomic.Uint64
	bytes atomic.Int64   // of messages that went across
	taken atomic.Int64   // slots, of a closed loop
	slots chan time.Time // of an open loop, nil in a closed one
	until time.Time      // no slot after it

	mu    sync.Mutex
	conns map[*conn]struct{}
}

var past = time.Unix(1, 0)

// Run does what o says. It returns when all its connections are closed, with an
// error only when it could not begin. When ctx is done it ends at once, and the
// result is what was measured until then.
func Run(ctx context.Context, o Options) (*Result, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r, err := newRun(ctx, o)
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, r.cut)()
	switch o.Mode {
	case Upgrade:
		r.upgrades()
	case Hold:
		r.hold()
	case Chat:
		r.chat()
	case Mail:
		r.mail()
	case Storm:
		r.storm()
	case Transfer:
		r.transfer()
	}
	return r.result(), nil
}

func newRun(ctx context.Context, o Options) (*run, error) {
	r := &run{ctx: ctx, o: o, tls: o.TLS.Clone(), conns: make(map[*conn]struct{})}
	r.rec.init()
	r.tls.DynamicRecordSizingDisabled = true // as servers do that have no browsers for clients
	if r.tls.ServerName == "" {              // asked for even if it is not verified; crypto/tls leaves out addresses
		r.tls.ServerName = o.Target.Host
	}
	if o.Resume && r.tls.ClientSessionCache == nil {
		r.tls.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	}
	// Once, and not for every connection.
	address, err := net.ResolveTCPAddr("tcp", o.Target.Address())
	if err != nil {
		return nil, fmt.Errorf("cannot find %s: %w", o.Target, err)
	}
	r.address = address.AddrPort()
	r.address = netip.AddrPortFrom(r.address.Addr().Unmap(), r.address.Port())
	r.spread = o.Sources && runtime.GOOS == "linux" && r.address.Addr().IsLoopback() && r.address.Addr().Is4()
	if r.meter, err = meterOf(o.PID); err == nil {
		r.behind, err = meterOf(o.Behind)
	}
	return r, err
}

// meterOf is nil where there is nothing to be measured.
func meterOf(pid int) (*meter, error) {
	if pid == 0 {
		return nil, nil
	}
	return newMeter(pid)
}

// start begins what is measured, and stop ends it.
func (r *run) start() (stop func()) {
	for _, m := range r.meters() {
		m.start()
	}
	r.rec.began = time.Now()
	r.until = r.rec.began.Add(r.o.Duration)
	done := make(chan struct{})
	var helpers sync.WaitGroup
	if r.o.Rate > 0 {
		r.slots = make(chan time.Time)
		helpers.Go(r.pace)
	}
	helpers.Go(func() { r.monitor(done) })
	return func() {
		close(done)
		helpers.Wait()
		r.rec.took = time.Since(r.rec.began)
		for _, m := range r.meters() {
			m.stop()
		}
	}
}

func (r *run) meters() (all []*meter) {
	for _, m := range []*meter{r.meter, r.behind} {
		if m != nil {
			all = append(all, m)
		}
	}
	return all
}

// slot waits for the next operation to begin, and says when it was due.
func (r *run) slot() (due time.Time, ok bool) {
	if r.slots != nil {
		due, ok = <-r.slots
		return due, ok
	}
	now := time.Now()
	if r.ctx.Err() != nil || now.After(r.until) {
		return now, false
	}
	return now, r.o.Operations == 0 || r.taken.Add(1) <= r.o.Operations
}

// pace makes the slots of an open loop. Those for which no connection was free
// until the end are missed.
func (r *run) pace() {
	defer close(r.slots)
	step := float64(time.Second) / r.o.Rate
	end := time.NewTimer(time.Until(r.until))
	defer end.Stop()
	planned := r.planned()
	for n := range planned {
		due := r.rec.began.Add(time.Duration(float64(n) * step))
		if !r.sleepUntil(due) {
			return
		}
		select {
		case r.slots <- due:
		case <-r.ctx.Done():
			return
		case <-end.C:
			r.rec.missed = planned - n
			return
		}
	}
}

// planned is how many operations of an open loop are due before its end.
func (r *run) planned() int64 {
	n := int64(math.Ceil(float64(r.o.Duration) * r.o.Rate / float64(time.Second)))
	if r.o.Operations > 0 {
		n = min(n, r.o.Operations)
	}
	return n
}

// sleepUntil is more precise than a timer, whose millisecond would be seen in the
// latency. It reports whether the run goes on.
func (r *run) sleepUntil(t time.Time) bool {
	const coarse = 2 * time.Millisecond
	if d := time.Until(t) - coarse; d > 0 && !r.sleep(d) {
		return false
	}
	if d := time.Until(t); d > 0 {
		sleepFine(d)
	}
	return r.ctx.Err() == nil
}

// sleep reports whether the run goes on.
func (r *run) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

// each runs f on n goroutines and waits for them.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}

func (r *run) opened(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
}

func (r *run) closed(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, c)
}

func (r *run) open() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.conns))
}

// cut ends every wait on a connection.
func (r *run) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		_ = c.tcp.SetDeadline(past)
	}
}
