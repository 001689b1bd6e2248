package smtp

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net/netip"
	"testing"
	"time"

	"starttlsd/codec"
)

var (
	testPeer = codec.NewPeer(433, // "c1"
		netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.2:25"))
	testTLS  = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}
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

// client drives a Session as the engine does, by the contract of codec.Session.
type client struct {
	s       *Session
	held    []byte // not yet consumed
	out     []byte // all replies that were not looked at
	lent    bool
	closed  bool
	secure  bool
	awaits  bool // the go-ahead was given: TLS is due
	noSlots bool // the engine cannot serve STARTTLS
	steps   int
}

var errSpin = errors.New("a session that makes no progress")

func connect(cfg *Config, secured bool) *client {
	c := &client{s: New(cfg, &testPeer), secure: secured}
	if secured {
		c.out = c.s.Secured(testTLS, c.out)
	}
	c.out = c.s.Greet(c.out)
	return c
}

// send gives the session one segment.
func (c *client) send(p []byte) {
	if c.closed {
		return
	}
	if c.awaits { // not a TLS record: the handshake fails, with no words
		c.close()
		return
	}
	c.held = append(c.held, p...)
	for idle := 0; !c.closed && (len(c.held) > 0 || c.lent); {
		n, out, action := c.s.Step(c.held, c.out)
		c.steps++
		if idle++; n > 0 {
			idle = 0
		}
		if idle > 4 {
			panic(errSpin)
		}
		for i := range n { // a session keeps nothing of in
			c.held[i] = '#'
		}
		c.held, c.out = c.held[n:], out
		switch action {
		case codec.NeedMore:
			return
		case codec.Upgrade:
			c.upgrade()
		case codec.Lend:
			if c.lent {
				panic("Lend while lent")
			}
			c.lent = true
		case codec.Return:
			if !c.lent {
				panic("Return while not lent")
			}
			c.lent = false
		case codec.Close:
			c.close()
		}
	}
}

func (c *client) upgrade() {
	switch {
	case c.secure || c.lent || c.s.tx != nil:
		panic("Upgrade where it must not be")
	case len(c.held) > 0:
		c.out = c.s.Refuse(codec.Injected, c.out)
		c.close()
	case c.noSlots:
		c.out = c.s.Refuse(codec.TLSUnavailable, c.out)
	default:
		c.out = c.s.GoAhead(c.out)
		c.awaits = true
	}
}

// handshake is the success of one.
func (c *client) handshake() {
	c.awaits, c.secure = false, true
	c.out = c.s.Secured(testTLS, c.out)
}

func (c *client) close() {
	c.closed = true
	if tidy := c.s.End(); tidy != nil {
		tidy()
	}
}

// say sends lines and returns the replies to them.
func (c *client) say(lines string) string {
	c.out = c.out[:0]
	c.send([]byte(lines))
	return string(c.out)
}

// mustSay is say for what comes before the matter of a test.
func (c *client) mustSay(t *testing.T, lines string) {
	t.Helper()
	if reply := c.say(lines); len(reply) == 0 || reply[0] > '3' {
		t.Fatalf("%q: %q", lines, reply)
	}
}
