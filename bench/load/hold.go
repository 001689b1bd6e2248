package load

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
)

// dialers open and ask the connections of a hold.
const dialers = 64

// hold is mode Hold.
func (r *run) hold() {
	conns := make([]*conn, r.o.Connections)
	stop := r.start()
	r.rec.enter("opening")
	start := time.Now()
	end := start.Add(r.patience())
	r.share(len(conns), func(i int, in *input) {
		began := time.Now()
		if began.After(end) {
			r.failed(began.Sub(start), errLate)
			return
		}
		var err error
		conns[i], err = r.held(earlier(began.Add(r.o.Timeout), end), in)
		took := time.Since(began)
		r.rec.phase.Load().record(took, err)
		r.note(took, err)
	})
	r.rec.enter("holding")
	r.watch()
	stop()
	r.release(conns)
}

var errLate = &failure{Timeout, errors.New("all connections together took too long: this one was not begun or not asked")}

// patience is how long all connections together may take to open, and again to
// release, so that a server that has stalled does not take a timeout for every few.
func (r *run) patience() time.Duration {
	const least, most = time.Minute, 2 * time.Minute
	rounds := time.Duration(min(r.o.Connections/dialers+1, 1000)) // or the product might overflow
	return max(r.o.Duration, r.o.Timeout, least, min(min(r.o.Timeout, most)*rounds, most))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// held opens a connection that can be left alone.
func (r *run) held(end time.Time, in *input) (*conn, error) {
	c, err := r.dial(end, in)
	if err != nil {
		return nil, err
	}
	if err := r.settle(c); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// share calls f for 0 to n-1 on a few goroutines.
func (r *run) share(n int, f func(i int, in *input)) {
	var next atomic.Int64
	each(min(dialers, n), func(int) {
		in := new(input)
		for i := int(next.Add(1)) - 1; i < n && r.ctx.Err() == nil; i = int(next.Add(1)) - 1 {
			f(i, in)
		}
	})
}

// idle is what makes a connection wait that is held, if anything does.
func (r *run) idle() exchange {
	if r.o.User == "" {
		return exchange{}
	}
	return r.o.Target.protocol.idle
}

// settle makes c a connection that can be left alone.
func (r *run) settle(c *conn) error {
	if err := c.enter(); err != nil {
		return err
	}
	if idle := r.idle(); idle.send != "" {
		if err := c.doze(idle); err != nil {
			return err
		}
	}
	if r.o.Size > 0 {
		if err := c.fill(r.o.Size); err != nil {
			return err
		}
	}
	if c.in.r < c.in.w {
		return &failure{Wrong, errors.New("something was sent that was not asked for")}
	}
	c.in = nil
	return nil
}

// doze has c wait in IDLE, in which a server may say what it likes, a whole line at a time.
func (c *conn) doze(idle exchange) error {
	if err := c.do(idle); err != nil {
		return err
	}
	for c.in.r < c.in.w {
		line, err := c.line()
		if err != nil {
			return err
		}
		if line[0] != '*' {
			return &failure{Wrong, fmt.Errorf("got %.200q, in IDLE", line)}
		}
	}
	return nil
}

// fill has a record of size bytes sent each way, or one that is a few bytes off
// where lines do not come out even: as many greetings as it takes for the reply,
// and padding for what that leaves of the record.
func (c *conn) fill(size int) error {
	p := c.run.o.Target.protocol
	hello, err := c.ask(p.hello)
	if err != nil {
		return err
	}
	const longest = 510 // RFC 5321 §4.5.3.1.4
	record, replies := strings.Repeat(p.hello.send, size/hello+1), size/hello+1
	noop := strings.TrimSuffix(p.noop.send, "\r\n") + " "
	for room := size - len(record); room > len(noop)+2; room = size - len(record) {
		record += noop + strings.Repeat("x", min(room, longest)-len(noop)-2) + "\r\n"
		replies++
	}
	if err := c.write(record); err != nil {
		return err
	}
	for range replies {
		if _, err := c.reply(p.hello.want); err != nil {
			return fmt.Errorf("after a record of %d bytes: %w", len(record), err)
		}
	}
	return nil
}

// watch lets the connections be, and sees once a second that others are served,
// unless the run is to be quiet.
func (r *run) watch() {
	in := new(input)
	end := time.Now().Add(r.o.Duration)
	if r.o.Quiet {
		r.sleep(r.o.Duration)
	}
	for time.Now().Before(end) && r.sleep(min(time.Second, time.Until(end))) {
		began := time.Now()
		at, err := r.upgrade(in)
		r.rec.phase.Load().record(at.Sub(began), err)
		r.failed(at.Sub(began), err)
	}
	r.rec.leave()
}

// release asks every connection if it is still there, and ends it.
func (r *run) release(conns []*conn) {
	probe := r.o.noop()
	if r.idle().send != "" {
		probe = r.o.Target.protocol.done
	}
	start := time.Now()
	end := start.Add(r.patience())
	r.share(len(conns), func(i int, in *input) {
		c := conns[i]
		if c == nil {
			return
		}
		began := time.Now()
		if began.After(end) {
			c.close()
			r.lost(began.Sub(start), errLate)
			return
		}
		in.r, in.w = 0, 0
		c.in = in
		c.extend(earlier(began.Add(r.o.Timeout), end))
		if err := c.do(probe); err != nil {
			c.close()
			r.lost(time.Since(began), &failure{Lost, fmt.Errorf("held, then asked: %w", err)})
			return
		}
		_, _ = c.quit()
	})
	for _, c := range conns { // the run was cut
		if c != nil {
			c.close()
		}
	}
}

// lost counts a connection that was open and no longer is, for whatever reason.
func (r *run) lost(took time.Duration, err error) {
	if r.ctx.Err() != nil {
		return
	}
	r.failed(took, err)
	r.rec.mu.Lock()
	defer r.rec.mu.Unlock()
	r.rec.done--
}
