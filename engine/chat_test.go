package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge/tlstest"
)

// chat is a protocol with everything that the engine has to carry out, and
// nothing else. Lines end with CRLF.
//
//	ECHO text    +text
//	BIG n        +, n-1 letters
//	STARTTLS     +go, then TLS
//	LEND         lent, +back
//	SINK n       n bytes are read where waiting is allowed, +CRC in hex
//	PANIC, LENDPANIC, LOGPANIC, GOPANIC, ENDPANIC: a panic there, or when it comes to it
//	QUIT
type chat struct {
	secured bool
	lent    bool
	panicky string // the command that asked for a panic later
	sink    int    // bytes still to come; -1: none
	crc     uint32
	lendFor string
}

func newChat(*codec.Peer) codec.Session { return &chat{sink: -1} }

func (s *chat) Greet(out []byte) []byte { return append(out, "+hello\r\n"...) }

func (s *chat) GoAhead(out []byte) []byte {
	s.panicIf("GOPANIC")
	return append(out, "+go\r\n"...)
}

func (s *chat) Describe() ([]slog.Attr, bool) {
	s.panicIf("LOGPANIC")
	return nil, false
}

func (s *chat) panicIf(verb string) {
	if s.panicky == verb {
		panic(verb)
	}
}

func (s *chat) Secured(_ *tls.ConnectionState, out []byte) []byte {
	*s = chat{secured: true, sink: -1}
	return out
}

func (s *chat) Refuse(r codec.Refusal, out []byte) []byte {
	words := map[codec.Refusal]string{
		codec.Busy: "busy", codec.Draining: "draining", codec.TimedOut: "timed out",
		codec.TLSUnavailable: "no tls", codec.Injected: "injected", codec.Internal: "internal",
	}
	return append(append(append(out, '-'), words[r]...), "\r\n"...)
}

func (s *chat) End() func() {
	s.panicIf("ENDPANIC")
	return nil
}

func (s *chat) Step(in, out []byte) (int, []byte, codec.Action) {
	if s.lent {
		return s.lentStep(in, out)
	}
	if s.sink >= 0 {
		if len(in) == 0 {
			return 0, out, codec.NeedMore
		}
		s.lent = true
		return 0, out, codec.Lend
	}
	end := bytes.Index(in, []byte("\r\n"))
	if end < 0 {
		return 0, out, codec.NeedMore
	}
	verb, arg, _ := strings.Cut(string(in[:end]), " ")
	action := codec.Continue
	switch verb {
	case "ECHO":
		out = append(append(append(out, '+'), arg...), "\r\n"...)
	case "BIG":
		n, _ := strconv.Atoi(arg)
		out = append(append(append(out, '+'), bytes.Repeat([]byte("x"), n-1)...), "\r\n"...)
	case "STARTTLS":
		if s.secured {
			out = append(out, "-again\r\n"...)
			break
		}
		action = codec.Upgrade
	case "SINK":
		s.sink, _ = strconv.Atoi(arg)
		s.crc = 0
	case "LEND", "LENDPANIC":
		s.lendFor, s.lent = verb, true
		action = codec.Lend
	case "PANIC":
		panic("on the loop")
	case "ENDPANIC", "LOGPANIC", "GOPANIC":
		s.panicky = verb
		out = append(out, "+later\r\n"...)
	case "QUIT":
		out = append(out, "+bye\r\n"...)
		action = codec.Close
	default:
		out = append(out, "-what\r\n"...)
	}
	return end + 2, out, action
}

func (s *chat) lentStep(in, out []byte) (int, []byte, codec.Action) {
	switch s.lendFor {
	case "LENDPANIC":
		panic("on a goroutine")
	case "LEND":
		s.lendFor, s.lent = "", false
		return 0, append(out, "+back\r\n"...), codec.Return
	}
	n := min(len(in), s.sink)
	s.crc = crc32.Update(s.crc, crc32.IEEETable, in[:n])
	if s.sink -= n; s.sink > 0 {
		return n, out, codec.NeedMore
	}
	s.sink, s.lent = -1, false
	return n, fmt.Appendf(out, "+%08x\r\n", s.crc), codec.Return
}

// server is an engine on loopback for one test.
type server struct {
	t      *testing.T
	eng    *Engine
	addr   string
	panics uint64 // that the test expects
	log    *syncBuffer
}

type option func(*Config)

func withLimits(l Limits) option       { return func(c *Config) { c.Listeners[0].Limits = l } }
func withAdmission(a Admission) option { return func(c *Config) { c.Admission = a } }

func start(t *testing.T, opts ...option) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, addr: ln.Addr().String(), log: new(syncBuffer)}
	cfg := Config{
		Listeners: []Listener{{Listener: ln, Name: "chat", TLS: tlstest.ServerConfig(), NewSession: newChat}},
		Log:       slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, o := range opts {
		o(&cfg)
	}
	if s.eng, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.stop)
	return s
}

// stop checks what has to be true of every engine at its end.
func (s *server) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_ = s.eng.Shutdown(ctx)
	st := s.eng.Stats()
	if st.Open != 0 || st.Lent != 0 || st.Handshake != (HandshakeStats{}) {
		s.t.Errorf("left at the end: %+v", st)
	}
	if st.Panics != s.panics {
		s.t.Errorf("%d panics, want %d\n%s", st.Panics, s.panics, s.log)
	}
}

// client is a peer that fails the test on anything unexpected.
type client struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (s *server) dial() *client {
	s.t.Helper()
	c := s.dialSilent()
	c.expect("+hello")
	return c
}

func (s *server) dialSilent() *client {
	s.t.Helper()
	nc, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{s.t, nc, bufio.NewReader(nc)}
}

func (s *server) dialTLS() *client {
	s.t.Helper()
	c := s.dial()
	c.send("STARTTLS\r\n")
	c.expect("+go")
	c.handshake(tlstest.ClientConfig())
	return c
}

func (c *client) handshake(cfg *tls.Config) {
	c.t.Helper()
	tc := tls.Client(c.Conn, cfg)
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("handshake: %v", err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.Conn, s); err != nil {
		c.t.Fatalf("send %.20q: %v", s, err)
	}
}

func (c *client) expect(lines ...string) {
	c.t.Helper()
	for _, want := range lines {
		got, err := c.r.ReadString('\n')
		if got = strings.TrimSuffix(got, "\r\n"); got != want || err != nil {
			c.t.Fatalf("got %.60q, %v; want %.60q", got, err, want)
		}
	}
}

// ended expects the peer's end, in good order, with nothing before it.
func (c *client) ended() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Fatalf("got %.60q, %v; want the end", rest, err)
	}
}

// eventually waits for cond, which other goroutines make true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen: %s", what)
		}
	}
}

// descriptors counts this process's open descriptors, or is -1 where it cannot.
func descriptors() int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(d)
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }
