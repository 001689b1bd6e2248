package config

import (
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
	q := &queue{news: make(chan struct{}, 1), done: make(chan struct{})}
	if l.Format == "json" {
		q.own = slog.NewJSONHandler(w, opts)
		log = slog.New(slog.NewJSONHandler(q, opts))
	} else {
		q.own = slog.NewTextHandler(w, opts)
		log = slog.New(slog.NewTextHandler(q, opts))
	}
	go q.drain(w)
	return log, sync.OnceFunc(q.flush)
}

// queue is an io.Writer of whole lines that never waits.
type queue struct {
	own  slog.Handler  // for what the queue itself has to say
	news chan struct{} // holds a token while lines wait or the end is near
	done chan struct{} // closed when all is written

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
		q.wake()
	}
	return len(line), nil
}

func (q *queue) wake() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

func (q *queue) drain(w io.Writer) {
	defer close(q.done)
	var lines []byte
	for ended := false; !ended; {
		<-q.news
		time.Sleep(logPause)
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
	q.wake()
	select {
	case <-q.done:
	case <-time.After(time.Second): // w is stuck
	}
}
