package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// recorder gathers what a run measures. Its methods may be called from any goroutine.
type recorder struct {
	began  time.Time
	took   time.Duration
	missed int64 // the pacer's, until it has ended

	mu       sync.Mutex
	latency  *Latency
	failures *Latency
	second   *Latency // since the last sample
	done     int64
	errors   map[Kind]int64
	examples map[Kind]string
	samples  []Sample
	tls      string
	resumed  int64
	seen     struct{ done, failed int64 } // at the last sample

	phase  atomic.Pointer[phase]
	phases []*phase
}

// phase is a Phase that is being measured.
type phase struct {
	Phase
	mu    sync.Mutex
	began time.Time
	prev  *phase
}

func (p *phase) record(took time.Duration, err error) {
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Latency.Record(took)
}

func (rec *recorder) init() {
	rec.latency, rec.failures, rec.second = NewLatency(), NewLatency(), NewLatency()
	rec.errors, rec.examples = make(map[Kind]int64), make(map[Kind]string)
}

// enter begins a phase and ends the one before.
func (rec *recorder) enter(name string) {
	rec.leave()
	p := &phase{Phase: Phase{Name: name, Latency: NewLatency()}, began: time.Now(), prev: rec.phase.Load()}
	rec.phases = append(rec.phases, p)
	rec.phase.Store(p)
}

// leave ends the phase.
func (rec *recorder) leave() {
	if p := rec.phase.Load(); p != nil {
		p.Took = time.Since(p.began)
	}
}

// phaseAt is the phase that t is in.
func (rec *recorder) phaseAt(t time.Time) *phase {
	p := rec.phase.Load()
	for p.prev != nil && t.Before(p.began) {
		p = p.prev
	}
	return p
}

// note counts an operation.
func (r *run) note(took time.Duration, err error) {
	if err != nil {
		r.failed(took, err)
		return
	}
	rec := &r.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.done++
	rec.latency.Record(took)
	rec.second.Record(took)
}

// failed counts an error, if there is one, that took so long. What the end of the
// run has interrupted is none.
func (r *run) failed(took time.Duration, err error) {
	if err == nil || r.ctx.Err() != nil {
		return
	}
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{Lost, err}
	}
	rec := &r.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.failures.Record(took)
	if rec.errors[f.kind]++; rec.errors[f.kind] == 1 {
		rec.examples[f.kind] = err.Error()
	}
}

// secured takes note of a finished handshake.
func (r *run) secured(tc *tls.Conn) {
	state := tc.ConnectionState()
	rec := &r.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if state.DidResume {
		rec.resumed++
	}
	if rec.tls == "" {
		rec.tls = tls.VersionName(state.Version) + ", " + tls.CipherSuiteName(state.CipherSuite)
		if state.CurveID != 0 {
			rec.tls += fmt.Sprint(", ", state.CurveID)
		}
	}
}

// monitor takes a sample a second and tells of the progress, until done is closed.
func (r *run) monitor(done <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	next := r.rec.began.Add(time.Second)
	r.progress()
	for {
		select {
		case <-done:
			r.sample() // however short, or its operations would be in none
			r.progress()
			return
		case now := <-tick.C:
			r.progress()
			if !now.Before(next) {
				r.sample()
				next = next.Add(time.Second)
			}
		}
	}
}

func (r *run) progress() {
	if r.o.Progress == nil {
		return
	}
	of := r.o.Operations
	if r.o.Rate > 0 {
		of = r.planned()
	}
	if r.o.Mode == Hold {
		of = int64(r.o.Connections)
	}
	r.rec.mu.Lock()
	done := r.rec.done
	r.rec.mu.Unlock()
	r.o.Progress(done, of)
}

func (r *run) sample() {
	s := Sample{At: time.Since(r.rec.began), Open: r.open()}
	if r.meter != nil {
		s.CPU, s.PSS = r.meter.sample()
	}
	rec := &r.rec
	rec.mu.Lock()
	defer rec.mu.Unlock()
	var failed int64
	for _, n := range rec.errors {
		failed += n
	}
	s.Done, s.Errors = rec.done-rec.seen.done, failed-rec.seen.failed
	rec.seen.done, rec.seen.failed = rec.done, failed
	s.P99 = rec.second.Percentile(99)
	rec.second = NewLatency()
	rec.samples = append(rec.samples, s)
}

// result is called when all goroutines of the run have ended.
func (r *run) result() *Result {
	rec := &r.rec
	res := &Result{
		Mode: r.o.Mode, Target: r.o.Target.String(), Began: rec.began, Took: rec.took,
		Cut: r.ctx.Err() != nil, Connections: r.o.Connections, Rate: r.o.Rate,
		Done: rec.done, Missed: rec.missed, TLS: rec.tls, Resumed: rec.resumed,
		Errors: maps.Clone(rec.errors), Examples: maps.Clone(rec.examples),
		Latency: rec.latency, Samples: rec.samples, Bytes: r.bytes.Load(),
	}
	if rec.failures.Count() > 0 {
		res.Failures = rec.failures
	}
	for _, p := range rec.phases {
		res.Phases = append(res.Phases, p.Phase)
	}
	if r.meter != nil {
		res.Server = r.meter.usage()
	}
	if r.behind != nil {
		res.Behind = r.behind.usage()
	}
	return res
}
