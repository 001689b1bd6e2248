package engine

import (
	"errors"
	"os"
	"time"
)

// A socket that is full has room again when about a third of its buffer is empty, which
// may be megabytes: of writes alone, a peer that reads slowly and one that does not read
// look the same. So what it takes meanwhile is looked at.

// looks is how often, in the time that it may stall.
const looks = 8

// leastTaken is what it has to take in that time: a byte now and then would hold a
// transfer for ever. More is not asked for, because downloads have no least rate, and a
// client that wants to hold one can as well stall, and then begin the next.
const leastTaken = 1 << 10

// pace is how a peer takes what is written to it.
type pace struct {
	stall  time.Duration // in which it has to take leastTaken
	since  time.Duration // when it had, or when the write began
	before int64         // what it had taken of all by then
}

// next is when to look.
func (p *pace) next(now time.Duration) time.Duration {
	return min(now+p.stall/looks, p.since+p.stall)
}

// stalled is told what the peer has taken of all, and reports whether it has stalled.
func (p *pace) stalled(taken int64, now time.Duration) bool {
	if taken >= p.before+leastTaken {
		p.before, p.since = taken, now
	}
	return now >= p.since+p.stall
}

// putSteadily is putSome for a peer that may be slow.
func (l *link) putSteadily(b []byte) (n int, err error) {
	e, off := l.lp.eng, l.off
	taken := func() int64 { return l.out - unacknowledged(off.tc) }
	p := pace{stall: time.Duration(off.stall.Load()), since: e.now(), before: taken()}
	for more := true; more; {
		_ = off.tc.SetWriteDeadline(e.deadline(p.next(e.now())))
		if e.at() == ending {
			l.interrupt(true)
		}
		var m int
		m, err = off.tc.Write(b[n:])
		n += m
		l.out += int64(m)
		more = errors.Is(err, os.ErrDeadlineExceeded) && e.at() != ending && // which has interrupted it
			!p.stalled(taken(), e.now())
	}
	l.fail(err)
	return n, err
}
