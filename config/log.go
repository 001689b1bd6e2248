package config

import (
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// logQueue is how many lines may wait for a slow reader of the log.
const logQueue = 4096

// Open returns the logger that l describes, which writes to w, and a function
// that ends it when what is queued is written, or after a second. Logging never waits for w: event
// loops log. When the queue is full lines are dropped, and their number is logged
// as soon as there is room.
func (l *Log) Open(w io.Writer) (log *slog.Logger, flush func()) {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // checked by Check
	opts := &slog.HandlerOptions{Level: level}
	q := &queue{lines: make(chan []byte, logQueue), done: make(chan struct{})}
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
	lines   chan []byte
	dropped atomic.Int64
	own     slog.Handler // for what the queue itself has to say
	mu      sync.RWMutex // held for reading while lines is written to
	ended   bool
	done    chan struct{}
}

// Write queues a copy of line.
func (q *queue) Write(line []byte) (int, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.ended {
		return 0, io.ErrClosedPipe
	}
	select {
	case q.lines <- append([]byte(nil), line...):
	default:
		q.dropped.Add(1)
	}
	return len(line), nil
}

func (q *queue) drain(w io.Writer) {
	defer close(q.done)
	for line := range q.lines {
		_, _ = w.Write(line)
		if n := q.dropped.Swap(0); n > 0 {
			slog.New(q.own).Warn("log lines were dropped", "lines", n)
		}
	}
}

func (q *queue) flush() {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	close(q.lines)
	select {
	case <-q.done:
	case <-time.After(time.Second): // w is stuck
	}
}
