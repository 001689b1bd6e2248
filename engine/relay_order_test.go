package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/codec"
	"starttlsd/tlsbridge/tlstest"
)

// onLoop does work on the only connection, which has to be on its loop.
func (s *server) onLoop(work func(*conn) gnet.Action) {
	s.t.Helper()
	eventually(s.t, "the connection on its loop", func() bool {
		found := make(chan bool)
		for _, lp := range *s.eng.loops.Load() {
			_ = lp.el.Execute(context.Background(), runFunc(func() {
				n := 0
				lp.timers.each(func(c *conn) {
					n++
					lp.act(c, work)
				})
				found <- n == 1
			}))
			if <-found {
				return true
			}
		}
		return false
	})
}

// What a socket has refused goes out first, whoever is the first to write to it
// when the pair is lent.
func TestWhatASocketHasRefusedGoesOutFirst(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		s := start(t, relayTo(backend(t, secureBackend, answer)))
		c := dial(s)
		c.send("x\r\n")
		c.expect("+x")
		first := bytes.Repeat([]byte("first"), 1000)
		for range 20 {
			s.onLoop(func(c *conn) gnet.Action {
				c.link.lp.out = append(append(c.link.lp.out, first...), "\r\n"...)
				c.flush()
				c.link.detour().pending = codec.GetBuffer() // as if the socket were full
				c.link.push(false)
				c.keep([]byte("LOCAL second\r\n"))
				c.move = lend
				return c.settle()
			})
			c.expect(string(first), "+second")
		}
	})
}

// Reading writes too, when a peer asks for a KeyUpdate. That does not overtake what
// the socket has refused.
func TestAnswerToAKeyUpdateGoesOutInItsTurn(t *testing.T) {
	s := start(t, relayTo(backend(t, false, answer)))
	c, sealer := s.attacker()
	raw := c.Conn.(*tls.Conn).NetConn()
	say := func(text string) { _, _ = raw.Write(sealer.Seal(tlstest.TypeApplication, []byte(text))) }
	say("OPAQUE\r\n")
	c.expect("+OPAQUE")
	for i := range 20 {
		line := fmt.Sprintf("line %d", i)
		s.onLoop(func(c *conn) gnet.Action {
			_, _ = c.tls.Write([]byte(line + "\r\n"))
			c.link.detour().pending = codec.GetBuffer()
			c.link.push(false)
			c.move = lend
			_, _ = raw.Write(sealer.KeyUpdate())
			return c.settle()
		})
		say("x\r\n")
		c.expect(line, "x")
	}
}

// And it has time of its own: the last write may be long ago.
func TestAnswerToAKeyUpdateHasTimeOfItsOwn(t *testing.T) {
	const stall = 200 * time.Millisecond
	s := start(t, withLimits(Limits{BodyStall: stall}), relayTo(backend(t, false, func(nc net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n') // FROM
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(nc, "+OPAQUE\r\n")
		_, _ = r.ReadString('.')
		_, _ = io.WriteString(nc, "first\r\n")
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(nc, "last\r\n")
	})))
	c, sealer := s.attacker()
	raw := c.Conn.(*tls.Conn).NetConn()
	say := func(text string) { _, _ = raw.Write(sealer.Seal(tlstest.TypeApplication, []byte(text))) }
	say("OPAQUE\r\n")
	c.expect("+OPAQUE")
	toGoroutines := func() {
		s.onLoop(func(c *conn) gnet.Action {
			c.move = lend
			return c.settle()
		})
	}
	toGoroutines()
	say("an upload.")
	c.expect("first")
	for began := time.Now(); time.Since(began) < 2*stall; time.Sleep(moment / 4) {
		say("goes on")
		if s.eng.Stats().Lent == 0 { // this machine was busy for more than a moment
			toGoroutines()
		}
	}
	_, _ = raw.Write(sealer.KeyUpdate())
	say("\r\n")
	c.expect("last")
}
