package load

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"starttlsd/codec"
	"starttlsd/codec/smtp"
	"starttlsd/engine"
)

func TestMain(m *testing.M) {
	// gnet's worker pool is its own for good.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*goWorker).run.func1"))
}

// store is a backend that keeps every message.
type store struct {
	mu       sync.Mutex
	messages [][]byte
}

func (s *store) Begin(*smtp.Envelope) (smtp.Message, error) { return &stored{store: s}, nil }

type stored struct {
	bytes.Buffer
	store *store
}

func (m *stored) Commit() error {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.store.messages = append(m.store.messages, m.Bytes())
	return nil
}

func (m *stored) Abort() {}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serve starts the engine on loopback and returns its address.
func serve(t *testing.T, cfg *tls.Config, implicit bool, b smtp.Backend) string {
	t.Helper()
	ln := listen(t)
	sc := &smtp.Config{Hostname: "server.example", TLS: !implicit, Backend: b, Limits: smtp.Limits{JunkCommands: 1 << 30}}
	eng, err := engine.New(engine.Config{
		Listeners: []engine.Listener{{
			Listener: ln, Name: "smtp", TLS: cfg, Implicit: implicit,
			NewSession: func(p *codec.Peer) codec.Session { return smtp.New(sc, p) },
		}},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = eng.Close() })
	return ln.Addr().String()
}

// script serves each connection with a goroutine of its own, the n-th from 1 on.
func script(t *testing.T, serve func(n int64, c *textproto.Conn)) string {
	t.Helper()
	ln := listen(t)
	var served sync.WaitGroup
	served.Go(func() {
		for n := int64(1); ; n++ {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer nc.Close()
				serve(n, textproto.NewConn(nc))
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return ln.Addr().String()
}

// answer says the greeting, and what reply makes of the first word of each command.
// An empty reply ends the connection, as QUIT does.
func answer(c *textproto.Conn, greeting string, reply func(verb string) string) {
	for text := greeting; text != ""; {
		if c.PrintfLine("%s", text) != nil {
			return
		}
		line, err := c.ReadLine()
		if err != nil {
			return
		}
		verb, _, _ := strings.Cut(line, " ")
		if verb == "QUIT" {
			_ = c.PrintfLine("221 bye")
			return
		}
		text = reply(verb)
	}
}

func fine(string) string { return "250 fine" }

func target(t *testing.T, scheme, addr string) Target {
	t.Helper()
	target, err := ParseTarget(scheme + "://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// mustRun runs o, which has to end by itself in good time.
func mustRun(t *testing.T, o Options) *Result {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = time.Minute
	}
	res, err := Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// clean fails the test if anything went wrong in a run of n operations.
func clean(t *testing.T, res *Result, n int64) {
	t.Helper()
	if res.Failed() > 0 || res.Cut {
		t.Errorf("cut: %v; errors: %v, %v", res.Cut, res.Errors, res.Examples)
	}
	if res.Done != n || res.Latency.Count() != n {
		t.Errorf("%d operations are done and %d measured, want %d", res.Done, res.Latency.Count(), n)
	}
}
