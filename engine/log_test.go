package engine

import (
	"net"
	"strings"
	"sync"
	"testing"
)

// Both sides of a pair may have an event at the same moment. What the loop says of
// the second is no warning: an operator can do nothing about it.
func TestPairsThatEndOnBothSidesAtOnceAreNoWarning(t *testing.T) {
	b := backend(t, false, answer)
	s := start(t, relayTo(b), func(c *Config) { c.Loops = 1 })
	for range 20 {
		var pairs []*client
		for range 10 {
			c := s.dial()
			c.send("OPAQUE\r\n")
			c.expect("+OPAQUE")
			pairs = append(pairs, c)
		}
		eventually(t, "all on the loop", func() bool { return s.eng.Stats().Lent == 0 })
		var wg sync.WaitGroup
		for _, c := range pairs {
			wg.Go(func() {
				c.send("x\r\n")
				_ = c.Conn.(*net.TCPConn).SetLinger(0)
				c.Close()
			})
		}
		wg.Wait()
	}
	eventually(t, "the end of all", func() bool { return s.eng.Stats().Open == 0 })
	stale := 0
	for line := range strings.Lines(s.log.String()) {
		if !strings.Contains(line, "of a stale connection") {
			continue
		}
		stale++
		if !strings.Contains(line, "level=DEBUG") {
			t.Fatalf("logged: %s", line)
		}
	}
	t.Logf("%d events of stale connections", stale)
}
