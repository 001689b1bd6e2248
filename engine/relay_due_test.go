package engine

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/engine/enginetest"
)

// A pair that changes hands has done nothing for its client.
func TestBeingLentIsNoProgress(t *testing.T) {
	const patience = time.Second
	s := start(t, relayTo(backend(t, false, answer)), withLimits(Limits{Command: patience}))
	c := s.dial()
	c.send("x\r\n")
	c.expect("+x")
	began := time.Now()
	for time.Since(began) < patience*7/10 {
		s.onLoop(func(c *conn) gnet.Action {
			c.move = lend
			return c.settle()
		})
	}
	c.expect("-timed out")
	if took := time.Since(began); took > patience*3/2 {
		t.Errorf("ended after %v, want %v", took, patience)
	}
}

// Bytes that come in without end, one by one, and make nothing whole.
func TestTrickleThatMakesNothingWholeIsOverdue(t *testing.T) {
	s := start(t, withLimits(Limits{Reply: 300 * time.Millisecond}), relayTo(backend(t, false, func(nc net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n') // FROM
		_, _ = r.ReadString('\n')
		for err := error(nil); err == nil; time.Sleep(moment / 10) {
			_, err = io.WriteString(nc, "x")
		}
	})))
	c := s.dial()
	c.send("OPAQUE\r\nwaits for the reply to that\r\n")
	enginetest.Eventually(t, "the backend", func() bool { st := s.eng.Stats(); return st.Relayed == 1 && st.Lent == 0 })
	s.onLoop(func(c *conn) gnet.Action {
		c.move = lend
		return c.settle()
	})
	c.expect("-no backend")
	c.ended()
	c.Close()
	s.saw(ReasonBackendTimeout, 1)
}

func TestRefusedUpgradeIsACommandLikeAnyOther(t *testing.T) {
	const patience = time.Second
	s := start(t, relayTo(backend(t, false, answer)), withLimits(Limits{Command: patience}),
		func(c *Config) { c.Listeners[0].TLS = nil })
	c := s.dial()
	c.send("x\r\n")
	c.expect("+x")
	for range 3 {
		time.Sleep(patience * 6 / 10)
		c.send("STARTTLS\r\n")
		c.expect("-no tls")
	}
}
