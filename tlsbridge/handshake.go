package tlsbridge

import (
	"iter"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valyala/bytebufferpool"
)

// buffers holds the wire bytes of handshakes only, so that it learns their sizes.
var buffers bytebufferpool.Pool

const (
	takeSize = 4 << 10 // one read of the link: a ClientHello with a post-quantum share fits
	maxEarly = 1 << 20 // what may follow the client's Finished, unread
)

// handshake is what a Conn needs until it is secure. The loop feeds it through
// step; its coroutine, which starts when the ClientHello is complete, runs
// crypto/tls over read and write, a turn at a time. Lock order: mu, then Slots.mu.
type handshake struct {
	conn   *Conn
	permit *Permit
	opts   Options
	resume func() (struct{}, bool) // runs the coroutine until it pauses or ends; for turn alone
	pause  func(struct{}) bool     // ends the turn, in the coroutine

	mu       sync.Mutex
	in       *bytebufferpool.ByteBuffer // from the peer; nil after a failure
	served   int                        // the part of in that crypto/tls has
	out      *bytebufferpool.ByteBuffer // for the link; nil when empty
	hello    helloScan
	began    time.Time // when the ClientHello was complete
	launched bool      // the first turn was granted
	answered bool      // crypto/tls has written
	inErr    error     // of link.Read: no more input
	cause    error     // why the handshake has to end
	timer    *time.Timer

	// The result, unchanging once done.
	done bool
	err  error // nil or *HandshakeError
	took time.Duration
}

func newHandshake(c *Conn, o Options) *handshake {
	if o.Wake == nil {
		o.Wake = func() {}
	}
	if o.Go == nil {
		o.Go = func(f func()) { go f() }
	}
	return &handshake{conn: c, permit: o.Permit, opts: o, in: buffers.Get()}
}

func (h *handshake) wake() { h.opts.Wake() }

func (h *handshake) expireAfter(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.timer = time.AfterFunc(d, func() {
		if h.abort(os.ErrDeadlineExceeded) {
			h.wake()
		}
	})
}

// step is the loop's turn: out with what crypto/tls has written, in with what
// the peer has sent. It reports whether the handshake is over and all flushed.
func (h *handshake) step(l Link) bool {
	h.flush(l)
	if !h.over() {
		h.take(l)
	}
	if !h.over() {
		return false
	}
	h.flush(l)
	return true
}

func (h *handshake) over() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// flush hands the output to the link, outside the lock.
func (h *handshake) flush(l Link) {
	h.mu.Lock()
	out := h.out
	h.out = nil
	h.mu.Unlock()
	if out == nil {
		return
	}
	_, err := l.Write(out.B)
	buffers.Put(out)
	if err != nil {
		h.broken(err)
	}
}

// take moves all that the link has into the handshake, or no more than it can use.
// The link is read outside the lock, into a buffer of its own.
func (h *handshake) take(l Link) {
	b := buffers.Get()
	defer buffers.Put(b)
	if cap(b.B) < takeSize {
		b.B = make([]byte, takeSize)
	}
	b.B = b.B[:takeSize]
	for !h.opts.sparing || h.needsPeer() {
		n, err := l.Read(b.B)
		if n > 0 && !h.feed(b.B[:n]) {
			return
		}
		if err != nil && !temporary(err) {
			h.inputEnded(err)
		}
		if err != nil || n == 0 {
			return
		}
	}
}

// feed appends input and lets the handshake go on when it can. It reports
// whether the handshake still takes any.
func (h *handshake) feed(b []byte) bool {
	h.mu.Lock()
	if h.cause != nil || h.err != nil {
		h.mu.Unlock()
		return false
	}
	h.in.Write(b)
	if h.done { // just now: what is left of in becomes the Conn's
		h.mu.Unlock()
		return false
	}
	cause := h.check()
	var next *Permit
	if cause == nil && !h.began.IsZero() && h.readable() {
		next = h.permit.ready()
	}
	h.mu.Unlock()
	if cause != nil {
		h.abort(cause)
		return false
	}
	next.grant()
	return true
}

// check looks at new input: is it within bounds, and has the ClientHello come?
func (h *handshake) check() error {
	if h.began.IsZero() {
		switch h.hello.scan(h.in.B) {
		case helloNotTLS:
			return errNotTLS
		case helloComplete:
			h.began = time.Now()
		}
	}
	limit := h.opts.Budget
	if h.answered {
		limit += maxEarly
	}
	if h.in.Len() > limit {
		return errBudget
	}
	return nil
}

// inputEnded notes that the link has no more input. Once crypto/tls is at work,
// it first gets what came before the end.
func (h *handshake) inputEnded(err error) {
	h.mu.Lock()
	h.inErr = err
	if !h.launched { // nobody is there to be answered
		h.mu.Unlock()
		h.abort(err)
		return
	}
	next := h.permit.ready()
	h.mu.Unlock()
	next.grant()
}

// broken notes that the link has refused output.
func (h *handshake) broken(err error) {
	h.mu.Lock()
	if h.done && h.err == nil {
		h.err = &HandshakeError{Reason: causeReason(err), Err: err}
	}
	h.mu.Unlock()
	h.abort(err)
}

// granted runs when the permit got a slot, on whatever goroutine gave it.
func (h *handshake) granted() {
	h.mu.Lock()
	h.launched = true
	h.mu.Unlock()
	h.opts.Go(h.turn)
}

// turn lets crypto/tls compute until it has to wait for the peer, or is done.
// Whoever calls it holds the slot, or has taken an unfinished handshake out of
// the Slots. The slot is given up here and not in the coroutine, because the
// next turn may be granted that very moment.
func (h *handshake) turn() {
	if h.resume == nil {
		h.resume, _ = iter.Pull(h.run)
	}
	for {
		h.resume()
		h.mu.Lock()
		if h.done {
			h.mu.Unlock()
			return
		}
		if h.cause == nil && h.inErr == nil && !h.readable() {
			next := h.permit.park()
			unsent := h.out != nil
			h.mu.Unlock()
			next.grant()
			if unsent {
				h.wake()
			}
			return
		}
		h.mu.Unlock() // what it waits for came meanwhile
	}
}

// run is the coroutine.
func (h *handshake) run(pause func(struct{}) bool) {
	growStack(0)
	h.pause = pause
	err := errExited // what remains after a runtime.Goexit
	defer func() { h.finish(err) }()
	defer func() {
		if v := recover(); v != nil {
			p := &PanicError{Value: v, Stack: debug.Stack()}
			err = p
			if h.opts.OnPanic != nil {
				h.opts.OnPanic(p.Value, p.Stack)
			}
		}
	}()
	err = h.conn.tls.Handshake()
}

// growStack makes the stack as large as a handshake needs it, while there is next
// to nothing on it: growing it step by step from deep inside crypto/tls copies
// every frame.
//
//go:noinline
func growStack(i int) byte {
	var room [10 << 10]byte
	return room[i]
}

func (h *handshake) finish(err error) {
	h.mu.Lock()
	if h.cause != nil {
		err = &HandshakeError{Reason: causeReason(h.cause), Err: h.cause}
	} else if err != nil {
		err = &HandshakeError{Reason: tlsReason(err), Err: err}
	}
	h.end(err)
	next := h.permit.end()
	h.mu.Unlock()
	next.grant()
	h.wake()
}

// end publishes the result. Call it with mu held.
func (h *handshake) end(err error) {
	h.done, h.err = true, err
	if !h.began.IsZero() {
		h.took = time.Since(h.began)
	}
	if h.timer != nil {
		h.timer.Stop()
	}
	if err != nil {
		buffers.Put(h.in)
		h.in = nil
	}
}

// abort gives the handshake up unless it is over. It reports whether that ended
// it here and now without a turn. One that waits is given its last turn, in
// which crypto/tls learns of the end; one that computes ends by itself.
func (h *handshake) abort(cause error) bool {
	h.mu.Lock()
	if h.done || h.cause != nil {
		h.mu.Unlock()
		return false
	}
	h.cause = cause
	was := h.permit.drop()
	begun := was == parked || was == resuming
	ended := was == reserved || was == queued
	if ended {
		h.end(&HandshakeError{Reason: causeReason(cause), Err: cause})
	}
	h.mu.Unlock()
	if begun {
		h.turn()
	}
	return ended
}

// readable reports whether crypto/tls can go on without waiting. Call it with mu held.
func (h *handshake) readable() bool {
	b := h.in.B[h.served:]
	if h.conn.records.body > 0 {
		return len(b) > 0
	}
	return recordReady(b)
}

// needsPeer reports whether the handshake waits for the peer, and not for a turn or
// for its end.
func (h *handshake) needsPeer() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.done && h.cause == nil && h.inErr == nil && (h.began.IsZero() || !h.readable())
}

// read is crypto/tls asking for input, in the coroutine. While there is no whole
// record, the turn is over.
func (h *handshake) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.cause == nil && !h.readable() {
		if h.inErr != nil {
			h.cause = h.inErr
			break
		}
		h.mu.Unlock()
		h.pause(struct{}{})
		h.mu.Lock()
	}
	if h.cause == nil && h.served > h.opts.Budget {
		h.cause = errBudget
	}
	if h.cause != nil {
		return 0, h.cause
	}
	n := copy(h.conn.records.limit(p), h.in.B[h.served:])
	h.conn.records.advance(p[:n])
	h.served += n
	return n, nil
}

// write is crypto/tls sending a flight or an alert, in the coroutine.
// The loop takes it from there.
func (h *handshake) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cause != nil {
		return 0, h.cause
	}
	if h.out == nil {
		h.out = buffers.Get()
	}
	h.answered = true
	return h.out.Write(p)
}
