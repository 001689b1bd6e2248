package engine

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestPlaintextDialogue(t *testing.T) {
	s := start(t)
	c := s.dial()
	c.send("ECHO one\r\nECHO two\r\nECHO th")
	c.expect("+one", "+two")
	c.send("ree\r\nQUIT\r\n")
	c.expect("+three", "+bye")
	c.ended()
}

func TestUpgradeThenDialogueUnderTLS(t *testing.T) {
	s := start(t)
	c := s.dialTLS()
	c.send("ECHO under tls\r\nSTARTTLS\r\nECHO still here\r\n")
	c.expect("+under tls", "-again", "+still here")
	c.send("QUIT\r\n")
	c.expect("+bye")
	c.ended()
	eventually(t, "the connection's log line", func() bool {
		return strings.Contains(s.log.String(), "msg=connection") && strings.Contains(s.log.String(), `reason=done layer=secure`)
	})
}

func TestImplicitTLSGreetsUnderTLS(t *testing.T) {
	s := start(t, func(c *Config) { c.Listeners[0].Implicit = true })
	c := s.dialSilent()
	c.handshake(tlstest.ClientConfig())
	c.expect("+hello")
	c.send("QUIT\r\n")
	c.expect("+bye")
	c.ended()
}

func TestBodyIsReadOnAGoroutineAndWhatFollowsItOnTheLoop(t *testing.T) {
	s := start(t)
	body := make([]byte, 3<<20)
	_, _ = rand.Read(body)
	sum := fmt.Sprintf("+%08x", crc32.ChecksumIEEE(body))
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		c.send(fmt.Sprintf("SINK %d\r\n", len(body)) + string(body) + "ECHO in the same write\r\nLEND\r\nECHO after\r\n")
		c.expect(sum, "+in the same write", "+back", "+after")
	}
}

// What was said before the end arrives in full at a client that reads late, with
// close_notify under TLS, and without a reset.
func TestLongLastWordsArriveAtASlowReader(t *testing.T) {
	s := start(t, withLimits(Limits{Linger: 300 * time.Millisecond}))
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		const size = 12 << 20 // more than sockets hold
		c.send(fmt.Sprintf("BIG %d\r\nQUIT\r\n", size))
		time.Sleep(time.Second)
		c.expect("+"+strings.Repeat("x", size-1), "+bye")
		c.ended()
	}
}

func TestLastWordsArriveThoughInputWasUnread(t *testing.T) {
	s := start(t)
	for range 200 {
		c := s.dial()
		c.send("QUIT\r\n" + strings.Repeat("ECHO unread\r\n", 500))
		c.expect("+bye")
		c.ended()
	}
}
