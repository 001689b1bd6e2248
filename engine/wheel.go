package engine

import "time"

const (
	tick       = 100 * time.Millisecond
	wheelSlots = 512
)

// wheel holds the deadlines of one loop's connections. It is lazy: a deadline
// that moves later costs an assignment, and the connection is put right when its
// old slot comes round. Owned by its loop.
type wheel struct {
	slots [wheelSlots]*conn // heads of doubly linked lists
	turn  int64             // the last tick that was served
}

// timer is a connection's place in the wheel.
type timer struct {
	deadline   time.Duration // since the engine's start
	at         time.Duration // the deadline the slot was chosen for; 0: not in the wheel
	next, prev *conn
}

func ticksOf(d time.Duration) int64 { return int64((d + tick - 1) / tick) }

// set gives c a deadline, sooner or later than the one it has.
func (w *wheel) set(c *conn, deadline time.Duration) {
	c.timer.deadline = deadline
	if c.timer.at != 0 {
		if deadline >= c.timer.at {
			return
		}
		w.remove(c)
	}
	w.put(c)
}

func (w *wheel) put(c *conn) {
	c.timer.at = max(c.timer.deadline, time.Duration(w.turn+1)*tick)
	head := &w.slots[ticksOf(c.timer.at)%wheelSlots]
	c.timer.prev, c.timer.next = nil, *head
	if *head != nil {
		(*head).timer.prev = c
	}
	*head = c
}

// remove takes c out; nothing happens if it is not in.
func (w *wheel) remove(c *conn) {
	if c.timer.at == 0 {
		return
	}
	if c.timer.prev != nil {
		c.timer.prev.timer.next = c.timer.next
	} else {
		w.slots[ticksOf(c.timer.at)%wheelSlots] = c.timer.next
	}
	if c.timer.next != nil {
		c.timer.next.timer.prev = c.timer.prev
	}
	c.timer.at, c.timer.next, c.timer.prev = 0, nil, nil
}

// advance serves every tick up to now. Each connection whose deadline has passed
// is taken out and given to expire.
func (w *wheel) advance(now time.Duration, expire func(*conn)) {
	last := int64(now / tick)
	for n := min(last-w.turn, wheelSlots); n > 0; n-- {
		w.turn = max(w.turn+1, last-n+1)
		var due *conn
		due, w.slots[w.turn%wheelSlots] = w.slots[w.turn%wheelSlots], nil
		for due != nil {
			c := due
			due = c.timer.next
			c.timer.at, c.timer.next, c.timer.prev = 0, nil, nil
			if c.timer.deadline <= now {
				expire(c)
			} else {
				w.put(c)
			}
		}
	}
}

// each calls f for every connection in the wheel; f may remove the one it is given.
func (w *wheel) each(f func(*conn)) {
	for _, c := range w.slots {
		for c != nil {
			next := c.timer.next
			f(c)
			c = next
		}
	}
}
