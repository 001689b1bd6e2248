package load

import (
	"fmt"
	"time"
)

// session is one that is used again and again, by one goroutine.
type session struct {
	run  *run
	in   *input
	conn *conn // nil: none, or it has failed
	used int   // operations

	number int // of the sessions of this run, from 0
}

// connect opens a connection, unless there is one. What goes wrong is a failure.
func (s *session) connect() error {
	if s.conn != nil {
		return nil
	}
	c, err := s.run.dial(time.Now().Add(s.run.o.Timeout), s.in)
	if err != nil {
		return err
	}
	if err := c.enter(); err != nil {
		c.close()
		return err
	}
	if c.files != nil {
		c.files.number = s.number
	}
	s.conn, s.used = c, 0
	return nil
}

// do runs one operation. A connection on which it has failed is not used again.
func (s *session) do(op func(*conn) error) error {
	s.conn.extend(time.Now().Add(s.run.o.Timeout))
	s.used++
	err := op(s.conn)
	if err != nil {
		s.conn.close()
		s.conn = nil
	}
	return err
}

// end says goodbye. That it is not answered does not matter any more.
func (s *session) end() {
	if s.conn != nil {
		s.conn.extend(time.Now().Add(s.run.o.Timeout))
		_, _ = s.conn.quit()
		s.conn = nil
	}
}

// connectMany opens n sessions, not too many at a time, and counts those that fail.
func (r *run) connectMany(n int) []*session {
	sessions := make([]*session, n)
	width := make(chan struct{}, 64)
	each(n, func(i int) {
		width <- struct{}{}
		defer func() { <-width }()
		sessions[i] = &session{run: r, in: new(input), number: i}
		began := time.Now()
		err := sessions[i].connect()
		r.failed(time.Since(began), err)
	})
	return sessions
}

// talk runs op again and again on sessions that are open before the clock starts.
// Each has at most that many operations to a connection, 0 for no such limit.
func (r *run) talk(op func(*conn) error, most int) {
	sessions := r.connectMany(r.o.Connections)
	stop := r.start()
	each(len(sessions), func(i int) { r.talking(sessions[i], op, most) })
	stop()
	each(len(sessions), func(i int) { sessions[i].end() })
}

func (r *run) talking(s *session, op func(*conn) error, most int) {
	for {
		due, ok := r.slot()
		if !ok {
			return
		}
		if most > 0 && s.used == most {
			s.end()
		}
		fresh := s.conn == nil
		if err := s.connect(); err != nil {
			r.failed(time.Since(due), err)
			continue
		}
		if fresh && r.slots == nil {
			due = time.Now() // nothing was due at a time: connecting is not measured
		}
		err := s.do(op)
		r.note(time.Since(due), err)
		if r.o.Pause > 0 {
			r.sleep(r.o.Pause)
		}
	}
}

// noop is a command that changes nothing, of one who has logged in if that is to be.
func (o *Options) noop() exchange {
	p := o.Target.protocol
	if o.User != "" && p.stay.send != "" {
		return p.stay
	}
	return p.noop
}

// chat is mode Chat.
func (r *run) chat() {
	noop := r.o.noop()
	r.talk(func(c *conn) error { return c.do(noop) }, 0)
}

// perConnection is how many messages a connection delivers. Servers have limits
// for that, often 100.
const perConnection = 100

// mail is mode Mail.
func (r *run) mail() {
	mail := exchange{fmt.Sprintf("MAIL FROM:<%s>\r\n", r.o.From), "250"}
	rcpt := exchange{fmt.Sprintf("RCPT TO:<%s>\r\n", r.o.To), "250"}
	data := exchange{"DATA\r\n", "354"}
	content := exchange{stuffed(message(r.o.Size)) + ".\r\n", "250"}
	r.talk(func(c *conn) error {
		for _, x := range []exchange{mail, rcpt, data} {
			if err := c.do(x); err != nil {
				return err
			}
		}
		return c.do(content)
	}, perConnection)
}
