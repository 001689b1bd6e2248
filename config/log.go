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

// Logger is the log of the process.
type Logger struct {
	*slog.Logger
	level    *slog.LevelVar
	sampling *sampling
	queue    *queue
	ended    sync.Once
}

// Open returns the logger that l describes, which writes to w. Logging never waits
// for w: event loops log. When the queue is full lines are dropped, and their number
// is logged as soon as there is room.
func (l *Log) Open(w io.Writer) *Logger {
	log := &Logger{level: new(slog.LevelVar)}
	opts := &slog.HandlerOptions{Level: log.level}
	q := &queue{news: make(chan struct{}, 1), hurry: make(chan struct{}, 1), done: make(chan struct{})}
	var h slog.Handler
	if l.Format == "json" {
		q.own, h = slog.NewJSONHandler(w, opts), slog.NewJSONHandler(q, opts)
	} else {
		q.own, h = slog.NewTextHandler(w, opts), slog.NewTextHandler(q, opts)
	}
	h = prompt{h, q}
	log.queue, log.sampling = q, newSampling(l, h)
	log.Logger = slog.New(sampled{h, log.sampling})
	log.Set(l)
	go q.drain(w)
	return log
}

// Set changes the level and the sampling to those of l. The format stays.
func (log *Logger) Set(l *Log) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked by Check
	log.level.Set(level)
	log.sampling.set(l)
}

// LeftOut is how many lines sampling has left out. Any goroutine may call it.
func (log *Logger) LeftOut() uint64 {
	log.sampling.mu.Lock()
	defer log.sampling.mu.Unlock()
	return log.sampling.total
}

// Flush ends the log when what is queued is written, or after a second.
func (log *Logger) Flush() {
	log.ended.Do(func() {
		log.sampling.summarize()
		log.queue.flush()
	})
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
