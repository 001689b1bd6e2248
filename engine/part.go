package engine

import (
	"cmp"
	"errors"
	"os"

	"starttlsd/codec"
)

// nobody hears the words.
const nobody codec.Refusal = 0xff

// finish ends a lent pair: the words are said if there is still a dialogue, and
// both goroutines stop.
func (r *relay) finish(why Reason, words codec.Refusal) {
	r.lent.mu.Lock()
	defer r.lent.mu.Unlock()
	if r.lent.over {
		return
	}
	r.c.blame(why)
	r.c.move = bye
	if words != nobody {
		_ = r.toClient(r.refuse(words, nil))
	}
	r.stop()
}

// cutShort is finish for a side that has ended without saying so.
func (r *relay) cutShort(why Reason, words codec.Refusal) {
	r.lent.mu.Lock()
	r.c.tear()
	r.lent.mu.Unlock()
	r.finish(why, words)
}

// stop has both goroutines stop. Called with the lock held.
func (r *relay) stop() {
	c := r.c
	r.lent.over = true
	r.lent.moved.Broadcast()
	c.link.interrupt(false)
	r.link.interrupt(false)
	if c.move == bye { // what is just being written has little time left
		c.link.mayStall(c.lst.Limits.Linger)
		r.link.mayStall(c.lst.Limits.Linger)
	}
}

// backendFailed: nothing more can be written to the backend. It may have said why.
func (r *relay) backendFailed(err error) {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.finish(ReasonBackendTimeout, codec.Unavailable)
		return
	}
	r.lent.mu.Lock()
	ended := r.downEnded && r.opaque
	r.upEnded = true
	r.due = r.c.lst.eng.now() + r.c.lst.Limits.Linger
	r.link.interrupt(false) // to see that
	r.lent.mu.Unlock()
	if ended {
		r.finish(ReasonBackendClosed, nobody)
	}
}

// endUp tells the backend that the client has ended its direction. Replies may
// still come. Where there are data connections, the session may have a command for the
// backend yet, so that it is not told: the client's last reply ends both.
func (r *relay) endUp() error {
	r.lent.mu.Lock()
	r.upEnded, r.lent.asked = true, true
	over, stays := r.opaque && r.downEnded || r.owesNothing(), r.data != nil && !r.opaque
	r.data.hurry()
	r.progress()
	r.link.interrupt(false) // there is a new deadline
	r.lent.mu.Unlock()
	switch {
	case over:
		return errEnded
	case stays:
		return nil
	}
	_ = r.stream.halfClose()
	return errStop
}

// owesNothing reports whether a client that has ended its direction has its replies.
// Called with the lock held.
func (r *relay) owesNothing() bool {
	return r.lent.asked && !r.opaque && !r.session.Outstanding()
}

// endDown tells the client that the backend has ended its direction, once nothing that
// it has said waits for a transfer.
func (r *relay) endDown() error {
	r.lent.mu.Lock()
	over, opaque, held := r.upEnded, r.opaque, r.held
	r.downEnded = opaque || held
	if opaque {
		r.c.blame(ReasonBackendClosed)
		r.progress()
		r.c.link.interrupt(false)
	}
	r.lent.mu.Unlock()
	switch {
	case held:
		return nil
	case !opaque:
		return errLost
	case over:
		return errEnded
	}
	_ = r.c.stream.halfClose()
	return errStop
}

// errLost: the backend has ended its direction before the dialogue was over.
var errLost = errors.New("the backend has gone")

// halfClose ends our direction of a lent stream.
func (s *stream) halfClose() error {
	var err error
	if s.tls != nil {
		err = s.tls.CloseNotify()
	}
	return cmp.Or(err, s.link.off.tc.CloseWrite())
}
