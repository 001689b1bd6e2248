package config

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logQueue is how many bytes of lines may wait for a slow reader of the log.
const logQueue = 1 << 20

// logPause is how long a line may wait for others to be written together with:
// a write and a wake-up for every connection would cost more than making the line.
const logPause = 20 * time.Millisecond

// Open returns the logger that l describes, which writes to w, and a function
// that ends it when what is queued is written, or after a second. Logging never waits for w: event
// loops log. When the queue is full lines are dropped, and their number is logged
// as soon as there is room.
func (l *Log) Open(w io.Writer) (log *slog.Logger, flush func()) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked by Check
	opts := &slog.HandlerOptions{Level: level}
	q := &queue{news: make(chan struct{}, 1), hurry: make(chan struct{}, 1), done: make(chan struct{})}
	if l.Format == "json" {
		q.own = slog.NewJSONHandler(w, opts)
		log = slog.New(prompt{slog.NewJSONHandler(q, opts), q})
	} else {
		q.own = slog.NewTextHandler(w, opts)
		log = slog.New(prompt{slog.NewTextHandler(q, opts), q})
	}
	go q.drain(w)
	return log, sync.OnceFunc(q.flush)
}

// queue is an io.Writer of whole lines that never waits.
type queue struct {
	own   slog.Handler  // for what the queue itself has to say
	news  chan struct{} // holds a token while lines wait or the end is near
	hurry chan struct{} // holds a token when they are not to wait for others
	done  chan struct{} // closed when all is written

	mu      sync.Mutex
	lines   []byte
	dropped int
	ended   bool
}

// Write queues a copy of line.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.ended:
		return 0, io.ErrClosedPipe
	case len(q.lines)+len(line) > logQueue:
		q.dropped++
	default:
		q.lines = append(q.lines, line...)
		signal(q.news)
	}
	return len(line), nil
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// prompt has warnings and errors written at once, with all that waits: they may
// be the last that the process says.
type prompt struct {
	slog.Handler
	q *queue
}

func (p prompt) Handle(ctx context.Context, r slog.Record) error {
	err := p.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		signal(p.q.hurry)
	}
	return err
}

func (p prompt) WithAttrs(attrs []slog.Attr) slog.Handler {
	return prompt{p.Handler.WithAttrs(attrs), p.q}
}
func (p prompt) WithGroup(name string) slog.Handler { return prompt{p.Handler.WithGroup(name), p.q} }

// keepBuffer is the size to which a buffer of lines is kept for the next.
const keepBuffer = 64 << 10

func (q *queue) drain(w io.Writer) {
	defer close(q.done)
	var lines []byte
	for ended := false; !ended; {
		<-q.news
		select {
		case <-q.hurry:
		case <-time.After(logPause):
		}
		if cap(lines) > keepBuffer {
			lines = nil
		}
		q.mu.Lock()
		lines, q.lines = q.lines, lines[:0]
		dropped := q.dropped
		q.dropped, ended = 0, q.ended
		q.mu.Unlock()
		_, _ = w.Write(lines)
		if dropped > 0 {
			slog.New(q.own).Warn("log lines were dropped", "lines", dropped)
		}
	}
}

func (q *queue) flush() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	signal(q.news)
	signal(q.hurry)
	select {
	case <-q.done:
	case <-time.After(time.Second): // w is stuck
	}
}
