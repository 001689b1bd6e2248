package config

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// summaryEvery is how often the lines that were left out are told of.
	summaryEvery = 10 * time.Second
	// mostKinds bounds the kinds that are told apart. There are a few dozen.
	mostKinds = 256
)

// sampling lets so many lines of each kind through, and counts the others: a flood
// of one kind, which is an attack, leaves the disk to the other kinds. A kind is a
// level, a message and a reason.
type sampling struct {
	now  func() time.Time
	next slog.Handler // for the summaries

	mu    sync.Mutex
	rate  rate.Limit
	burst int // 0: no limit
	kinds map[string]*kind
	timer *time.Timer // of the next summary; nil: nothing was left out
	total uint64      // lines that were left out
}

type kind struct {
	limit *rate.Limiter
	left  int // out
	level slog.Level
}

func newSampling(l *Log, next slog.Handler) *sampling {
	s := &sampling{now: time.Now, next: next}
	s.set(l)
	return s
}

// set changes the limits.
func (s *sampling) set(l *Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kinds == nil || s.rate != rate.Limit(l.Rate) || s.burst != l.Burst {
		s.rate, s.burst = rate.Limit(l.Rate), l.Burst
		kinds := make(map[string]*kind)
		for name, k := range s.kinds { // what they have left out is still to be told
			kinds[name] = &kind{limit: rate.NewLimiter(s.rate, s.burst), left: k.left, level: k.level}
		}
		s.kinds = kinds
	}
}

// allows reports whether a line of that kind is logged.
func (s *sampling) allows(level slog.Level, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.burst == 0 {
		return true
	}
	k, ok := s.kinds[name]
	if !ok {
		if len(s.kinds) >= mostKinds {
			name = "other kinds"
			k = s.kinds[name]
		}
		if k == nil {
			k = &kind{limit: rate.NewLimiter(s.rate, s.burst), level: level}
			s.kinds[name] = k
		}
	}
	if k.limit.AllowN(s.now(), 1) {
		return true
	}
	k.left++
	s.total++
	if s.timer == nil {
		s.timer = time.AfterFunc(summaryEvery, s.summarize)
	}
	return false
}

// summarize tells how many lines were left out since it was called last.
func (s *sampling) summarize() {
	s.mu.Lock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	var records []slog.Record
	for _, name := range slices.Sorted(maps.Keys(s.kinds)) {
		if k := s.kinds[name]; k.left > 0 {
			r := slog.NewRecord(s.now(), k.level, "log lines of a kind were left out", 0)
			r.AddAttrs(slog.String("kind", name), slog.Int("lines", k.left))
			records = append(records, r)
			k.left = 0
		}
	}
	s.mu.Unlock()
	for _, r := range records {
		_ = s.next.Handle(context.Background(), r)
	}
}

// sampled is the handler that asks sampling.
type sampled struct {
	slog.Handler
	s *sampling
}

func (h sampled) Handle(ctx context.Context, r slog.Record) error {
	var name strings.Builder
	name.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "reason" {
			name.WriteString(": ")
			name.WriteString(a.Value.String())
		}
		return a.Key != "reason"
	})
	if !h.s.allows(r.Level, name.String()) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h sampled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sampled{h.Handler.WithAttrs(attrs), h.s}
}
func (h sampled) WithGroup(name string) slog.Handler { return sampled{h.Handler.WithGroup(name), h.s} }
