package engine

import (
	"errors"
	"os"

	"starttlsd/codec"
)

// passUp gives the client's data to the session, or to the backend.
func (w *way) passUp(data []byte) ([]byte, error) {
	for {
		n, action, err := w.forward(data)
		data = data[n:]
		if err == nil || errors.Is(err, errDone) || errors.Is(err, errUpgrade) {
			if werr := w.write(w.up); werr != nil {
				err = werr
			}
		}
		switch {
		case err != nil:
			return data, err
		case action == codec.Opaque:
			return nil, w.write(data)
		case action == codec.NeedMore:
			return data, nil
		}
	}
}

// forward is a call of Forward, when it may be called. Opaque means that there is no
// need to.
func (w *way) forward(data []byte) (n int, action codec.Action, err error) {
	r := w.r
	r.lent.mu.Lock()
	defer r.lent.mu.Unlock()
	for r.hold && !r.lent.over {
		r.lent.moved.Wait()
	}
	w.up = w.up[:0]
	switch {
	case r.lent.over:
		return 0, 0, errStop
	case r.opaque:
		if len(data) > 0 {
			r.progress()
		}
		return 0, codec.Opaque, nil
	case len(data) == 0 && r.data == nil:
		return 0, codec.NeedMore, nil
	}
	n, w.up, w.out, action = r.session.Forward(data, w.up, w.out[:0])
	r.forwarded(action, n)
	switch action {
	case codec.NeedMore, codec.Continue, codec.Content:
	case codec.Hold:
		if r.hold = len(data) > 0; !r.hold { // nothing has to wait, so that the client's end is seen
			action = codec.NeedMore
		}
	case codec.Upgrade:
		r.asked = true
		err = errUpgrade
	case codec.Close:
		err = errDone
	default:
		panic("engine: an Action that Forward may not return")
	}
	if len(w.up) > 0 && r.downEnded { // nobody would answer; what was said last may be all there is
		w.up = w.up[:0]
		r.lent.lookAgain()
		r.link.interrupt(false)
	}
	if werr := r.toClient(w.out); werr != nil {
		err = werr
	}
	return n, action, err
}

// passDown gives the backend's data to the session, or to the client.
func (w *way) passDown(data []byte) ([]byte, error) {
	for len(data) > 0 {
		n, err := w.reply(data)
		if n == 0 || err != nil {
			return data[n:], err
		}
		data = data[n:]
	}
	return nil, nil
}

// reply is a call of Reply, if there is a need to.
func (w *way) reply(data []byte) (n int, err error) {
	r := w.r
	if w.unseen() {
		return len(data), r.toClient(data)
	}
	r.lent.mu.Lock()
	defer r.lent.mu.Unlock()
	if r.lent.over {
		return 0, errStop
	}
	var action codec.Action
	n, w.out, action = r.session.Reply(data, w.out[:0])
	r.held = action == codec.Hold
	switch action {
	case codec.NeedMore, codec.Hold:
	case codec.Content:
		r.progress()
	case codec.Continue, codec.Opaque:
		r.hold, r.opaque = false, action == codec.Opaque
		r.lent.moved.Broadcast()
		r.progress()
	case codec.Close:
		err = errDone
	default:
		panic("engine: an Action that Reply may not return")
	}
	if err == nil && r.owesNothing() {
		err = errEnded
	}
	if werr := r.toClient(w.out); werr != nil {
		err = werr
	}
	return n, err
}

// unseen reports whether bytes are carried across as they are.
func (w *way) unseen() bool {
	r := w.r
	r.lent.mu.Lock()
	defer r.lent.mu.Unlock()
	if r.opaque {
		r.progress()
	}
	return r.opaque
}

// write gives p to the backend, waiting.
func (w *way) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return w.writing(w.r.write(p))
}

// toClient gives p to the client, waiting.
func (r *relay) toClient(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := r.c.stream.write(p); err != nil {
		return errors.Join(errClient, err)
	}
	return nil
}

// writing says where err has come from.
func (w *way) writing(err error) error {
	switch {
	case err == nil:
		return nil
	case w.to == &w.r.stream:
		return errors.Join(errBackend, err)
	default:
		return errors.Join(errClient, err)
	}
}

// unread is why a client could not be written to.
func (r *relay) unread(err error) Reason {
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonReset
	case r.c.lst.eng.at() == ending:
		return ReasonDrained
	default:
		return ReasonOutputTimeout
	}
}
