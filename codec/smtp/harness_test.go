package smtp

import (
	"bytes"
	"testing"
	"time"

	"starttlsd/codec/codectest"
)

var (
	testPeer = codectest.Peer
	testTLS  = codectest.TLS
	testTime = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

func testConfig(backend Backend) *Config {
	return &Config{
		Hostname: "mx.test",
		TLS:      true,
		Backend:  backend,
		Now:      func() time.Time { return testTime },
	}
}

// memory is a Backend that keeps what was delivered.
type memory struct {
	mails   []mailed
	looked  int    // how many of them a script has looked at
	rest    string // what it has not compared of the last of those
	opened  int
	aborted int
	begin   error // what Begin fails with
	commit  error // what Commit fails with
	room    int   // octets that can be written, when write is set
	write   error // what Write fails with when there is no more room
}

type mailed struct {
	env     Envelope
	trace   string
	content string
}

func (m *memory) Begin(env *Envelope) (Message, error) {
	if m.begin != nil {
		return nil, m.begin
	}
	m.opened++
	return &memoryMessage{to: m, env: *env}, nil
}

type memoryMessage struct {
	to     *memory
	env    Envelope
	trace  string
	buf    bytes.Buffer
	failed bool
	ended  bool
}

func (m *memoryMessage) Write(p []byte) (int, error) {
	m.mustBeOpen()
	if m.trace == "" { // the first call
		m.trace = string(p)
		return len(p), nil
	}
	if m.to.write != nil && m.buf.Len()+len(p) > m.to.room {
		m.failed = true
		return 0, m.to.write
	}
	return m.buf.Write(p)
}

func (m *memoryMessage) Commit() error {
	m.mustBeOpen()
	m.ended = true
	if m.failed {
		panic("Commit behind a failed Write")
	}
	if m.to.commit != nil {
		return m.to.commit
	}
	m.to.mails = append(m.to.mails, mailed{m.env, m.trace, m.buf.String()})
	return nil
}

func (m *memoryMessage) Abort() {
	m.mustBeOpen()
	m.ended = true
	m.to.aborted++
}

func (m *memoryMessage) mustBeOpen() {
	if m.ended {
		panic("a message was used after its end")
	}
}

// client is a Session with the engine's part played by codectest.
type client struct {
	*codectest.Driver
	s *Session
}

func connect(cfg *Config, secured bool) *client {
	s := New(cfg, &testPeer)
	return &client{codectest.Connect(s, secured), s}
}

// say sends lines and returns the replies to them.
func (c *client) say(lines string) string {
	c.Out = c.Out[:0]
	c.Send([]byte(lines))
	return string(c.Out)
}

// mustSay is say for what comes before the matter of a test.
func (c *client) mustSay(t *testing.T, lines string) {
	t.Helper()
	if reply := c.say(lines); len(reply) == 0 || reply[0] > '3' {
		t.Fatalf("%q: %q", lines, reply)
	}
}
