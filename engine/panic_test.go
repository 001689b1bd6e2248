package engine

import (
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"starttlsd/codec"
)

// A panic in a session ends its own connection, is counted and logged with its
// stack, and leaves nothing behind: every server's end checks that.
func TestPanicEndsItsOwnConnectionOnly(t *testing.T) {
	s := start(t)
	other := s.dialTLS()
	for _, script := range []string{
		"PANIC\r\n",
		"LENDPANIC\r\n",
		"ENDPANIC\r\nQUIT\r\n",
		"LOGPANIC\r\nQUIT\r\n",
		"LOGPANIC\r\nLEND\r\nSINK 5\r\nabc", // ends on a goroutine
	} {
		for _, c := range []*client{s.dial(), s.dialTLS()} {
			s.panics++
			c.send(script)
			if strings.HasSuffix(script, "abc") {
				c.expect("+later", "+back")
				c.abort()
				continue
			}
			_, _ = io.ReadAll(c.r)
		}
	}
	eventually(t, "all but one gone", func() bool { return s.eng.Stats().Open == 1 })
	other.send("ECHO alive\r\n")
	other.expect("+alive")
	eventually(t, "the stacks in the log", func() bool { return strings.Count(s.log.String(), "chat_test.go") >= int(s.panics) })
}

func TestPanicInTheGoAheadGivesThePermitBack(t *testing.T) {
	s := start(t)
	s.panics = 1
	c := s.dial()
	c.send("GOPANIC\r\nSTARTTLS\r\n")
	_, _ = io.ReadAll(c.r)
	eventually(t, "the permit given back", func() bool { return s.eng.Stats().Handshake == (HandshakeStats{}) })
}

func TestPanicInNewSessionLeavesTheListenerServing(t *testing.T) {
	var calls atomic.Int32
	s := start(t, func(c *Config) {
		c.Admission.MaxConnections = 1
		c.Listeners[0].NewSession = func(p *codec.Peer) codec.Session {
			if calls.Add(1)%2 == 1 {
				panic("in NewSession")
			}
			return newChat(p)
		}
	})
	s.panics = 2
	for range 2 { // admitted, then turned away
		_, _ = io.ReadAll(s.dialSilent().r)
		if calls.Load() == 1 {
			s.dial()
		}
	}
}
