package engine

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge"
	"starttlsd/tlsbridge/tlstest"
)

// front is a protocol with everything that a relayed session may ask for. Lines end
// with CRLF, and every line gets one line from the backend. Of its own it has
//
//	STARTTLS     as chat
//	BODY n       n bytes follow
//	LOCAL text   +text, without the backend
//	OPAQUE       from the reply on, bytes are carried across unseen
//	QUIT         the reply ends the session
type front struct {
	secured bool
	owed    int    // replies
	waiting string // the command behind which everything waits
	body    int    // bytes still to come
}

func newFront(*codec.Peer) codec.Session { return &front{} }

func (s *front) Greet(out []byte) []byte { return append(out, "+hello\r\n"...) }
func (s *front) GoAhead(out []byte) []byte {
	return append(out, "+go\r\n"...)
}
func (s *front) End() func() { return nil }
func (s *front) Secured(_ *tls.ConnectionState, out []byte) []byte {
	*s = front{secured: true}
	return out
}

func (s *front) Refuse(r codec.Refusal, out []byte) []byte {
	words := map[codec.Refusal]string{
		codec.Busy: "busy", codec.Draining: "draining", codec.TimedOut: "timed out", codec.Internal: "internal",
		codec.TLSUnavailable: "no tls", codec.Injected: "injected", codec.Unavailable: "no backend",
	}
	if s.body > 0 && r != codec.Unavailable {
		return out
	}
	return append(append(append(out, '-'), words[r]...), "\r\n"...)
}

func (s *front) Step(in, out []byte) (int, []byte, codec.Action) {
	end := bytes.Index(in, []byte("\r\n"))
	if end < 0 {
		return 0, out, codec.NeedMore
	}
	switch string(in[:end]) {
	case "STARTTLS":
		return end + 2, out, codec.Upgrade
	case "QUIT":
		return end + 2, append(out, "+bye\r\n"...), codec.Close
	default:
		return 0, out, codec.Dial
	}
}

func (s *front) Introduce(u codec.Upstream, c *codec.Client) error {
	line, err := u.ReadLine()
	if err != nil || string(line) != "+backend" {
		return fmt.Errorf("greeting %q: %w", line, errors.Join(err, errors.New("is not right")))
	}
	_, err = fmt.Fprintf(u, "FROM %s %s tls=%v\r\n", c.Peer.ID, c.Peer.Remote, c.TLS != nil)
	return err
}

func (s *front) Outstanding() bool { return s.owed > 0 }

func (s *front) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	if s.body > 0 {
		n := min(len(in), s.body)
		if s.body -= n; s.body > 0 {
			return n, append(up, in[:n]...), out, codec.Content
		}
		s.owed++
		return n, append(up, in[:n]...), out, codec.Continue
	}
	if s.waiting != "" {
		return 0, up, out, codec.Hold
	}
	end := bytes.Index(in, []byte("\r\n"))
	if end < 0 {
		return 0, up, out, codec.NeedMore
	}
	verb, arg, _ := strings.Cut(string(in[:end]), " ")
	switch verb {
	case "STARTTLS":
		if s.owed > 0 {
			return 0, up, out, codec.Hold
		}
		return end + 2, up, out, codec.Upgrade
	case "LOCAL":
		if s.owed > 0 {
			return 0, up, out, codec.Hold
		}
		return end + 2, up, fmt.Appendf(out, "+%s\r\n", arg), codec.Continue
	case "BODY":
		s.body, _ = strconv.Atoi(arg)
		return end + 2, append(up, in[:end+2]...), out, codec.Continue
	case "OPAQUE", "QUIT":
		s.waiting = verb
	}
	s.owed++
	return end + 2, append(up, in[:end+2]...), out, codec.Continue
}

func (s *front) Reply(in, out []byte) (int, []byte, codec.Action) {
	end := bytes.IndexByte(in, '\n') + 1
	if end == 0 {
		return 0, out, codec.NeedMore
	}
	s.owed--
	action := codec.Continue
	switch {
	case s.owed > 0:
	case s.waiting == "OPAQUE":
		action = codec.Opaque
	case s.waiting == "QUIT":
		action = codec.Close
	}
	return end, append(out, in[:end]...), action
}

// behind is a backend for tests, each connection of which talk serves.
type behind struct {
	addr  string
	tls   bool
	conns atomic.Int32 // that were ever there
	open  atomic.Int32
}

func backend(t *testing.T, secure bool, talk func(net.Conn, *bufio.Reader)) *behind {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &behind{addr: ln.Addr().String(), tls: secure}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			b.conns.Add(1)
			b.open.Add(1)
			go func() {
				defer b.open.Add(-1)
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(time.Minute))
				if secure {
					nc = tls.Server(nc, tlstest.ServerConfig())
				}
				_, _ = io.WriteString(nc, "+backend\r\n")
				talk(nc, bufio.NewReader(nc))
			}()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
		eventually(t, "the backend's connections gone", func() bool { return b.open.Load() == 0 })
	})
	return b
}

// upstream is a blocking codec.Upstream for tests.
type upstream struct {
	*bufio.Reader
	io.Writer
}

func (u upstream) ReadLine() ([]byte, error) {
	line, err := u.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}
func (u upstream) MustStartTLS() bool { return false }
func (u upstream) Secure() bool       { return false }
func (u upstream) StartTLS() error    { return errors.New("not here") }

// tcpLink is a link for tlsbridge.Client.
type tcpLink struct{ *net.TCPConn }

func (b *behind) dial(ctx context.Context, s codec.Relayed, c *codec.Client) (Upstream, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", b.addr)
	if err != nil {
		return Upstream{}, err
	}
	up := Upstream{TCP: nc.(*net.TCPConn)}
	var stream io.ReadWriter = nc
	if b.tls {
		if up.TLS, err = tlsbridge.Client(ctx, tcpLink{up.TCP}, tlstest.ClientConfig()); err != nil {
			return Upstream{}, err
		}
		stream = up.TLS
	}
	r := bufio.NewReader(stream)
	if err := s.Introduce(upstream{r, stream}, c); err != nil {
		_ = nc.Close()
		return Upstream{}, err
	}
	up.Ahead, _ = r.Peek(r.Buffered())
	return up, nil
}

func relayTo(b *behind) option {
	return func(c *Config) {
		c.Listeners[0].NewSession = newFront
		c.Listeners[0].Dial = b.dial
	}
}

// answer is a backend that answers each line with "+" and the line, and obeys
//
//	BODY n     n bytes, answered with their number
//	OPAQUE     from here on everything comes back as it is
//	SILENCE    no more answers
//	DROP       the connection ends; RESET with a reset
func answer(nc net.Conn, r *bufio.Reader) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		verb, arg, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
		switch verb {
		case "FROM":
			continue
		case "BODY":
			n, _ := strconv.Atoi(arg)
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				return
			}
			line = fmt.Sprintf("got %d\r\n", n)
		case "SILENCE":
			_, _ = io.Copy(io.Discard, r)
			return
		case "DROP":
			return
		case "RESET":
			if u, ok := nc.(interface{ NetConn() net.Conn }); ok {
				nc = u.NetConn()
			}
			_ = nc.(*net.TCPConn).SetLinger(0)
			return
		}
		if _, err := io.WriteString(nc, "+"+line); err != nil {
			return
		}
		switch verb {
		case "QUIT":
			return
		case "OPAQUE":
			_, _ = io.Copy(nc, r)
			return
		}
	}
}

// everyKind runs a test for each layer of both sides.
func everyKind(t *testing.T, test func(t *testing.T, secureBackend bool, dial func(*server) *client)) {
	for _, secureBackend := range []bool{false, true} {
		for name, dial := range map[string]func(*server) *client{"plain": (*server).dial, "starttls": (*server).dialTLS} {
			t.Run(fmt.Sprintf("client=%s/backend-tls=%v", name, secureBackend), func(t *testing.T) {
				test(t, secureBackend, dial)
			})
		}
	}
}
