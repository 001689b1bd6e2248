package tickets

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"starttlsd/tlsbridge/tlstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rotation = 10 * time.Minute

// skewed is a clock that is ahead by so much.
func skewed(by time.Duration) func() time.Time {
	return func() time.Time { return time.Now().Add(by) }
}

// logged returns a logger and what it has written.
func logged() (*slog.Logger, func() string) {
	b := new(buffer)
	return slog.New(slog.NewTextHandler(b, nil)), b.String
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// mustOpen opens a ring that is closed at the end of the test.
func mustOpen(t testing.TB, o Options) *Ring {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// serve returns a tls.Config whose keys are those of scope in r.
func serve(r *Ring, scope string) *tls.Config {
	cfg := tlstest.ServerConfig()
	r.Serve(scope, cfg)
	return cfg
}

// first is a client that comes with the session of its first connection again and again.
type first struct {
	mu      sync.Mutex
	session *tls.ClientSessionState
}

func (f *first) Get(string) (*tls.ClientSessionState, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.session, f.session != nil
}

func (f *first) Put(_ string, s *tls.ClientSessionState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.session == nil {
		f.session = s
	}
}

// newClient returns a client of one version of TLS without any session.
func newClient(version uint16) *tls.Config {
	cfg := tlstest.ClientConfig()
	cfg.MinVersion, cfg.MaxVersion = version, version
	cfg.ClientSessionCache = new(first)
	return cfg
}

// connect has client and server shake hands and exchange a byte. It returns what the
// server sees.
func connect(t testing.TB, client, server *tls.Config) tls.ConnectionState {
	t.Helper()
	c, s := net.Pipe()
	defer c.Close()
	defer s.Close()
	done := make(chan error, 1)
	q := newQueued(s)
	srv := tls.Server(q, server)
	go func() {
		_, err := srv.Write([]byte("x"))
		if err != nil {
			_ = s.Close()
		}
		close(q.writes) // crypto/tls writes no more: only Close would
		done <- err
	}()
	_, err := tls.Client(c, client).Read(make([]byte, 1))
	if err != nil {
		_ = c.Close()
	}
	if served := <-done; err != nil || served != nil {
		t.Fatalf("client: %v, server: %v", err, served)
	}
	return srv.ConnectionState()
}

// queued is a pipe whose writer does not wait for the reader: both sides of TLS write
// when they like.
type queued struct {
	net.Conn
	writes chan []byte
}

func newQueued(nc net.Conn) queued {
	q := queued{nc, make(chan []byte, 64)}
	go func() {
		for p := range q.writes {
			_, _ = q.Conn.Write(p)
		}
	}()
	return q
}

func (q queued) Write(p []byte) (int, error) {
	q.writes <- slices.Clone(p)
	return len(p), nil
}

// memory is a ledger in the process, which can be away and lose all it has.
type memory struct {
	mu   sync.Mutex
	gens map[int64][]secret
	down bool
}

func newMemory() *memory { return &memory{gens: make(map[int64][]secret)} }

var errAway = errors.New("the ledger is away")

func (m *memory) set(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (m *memory) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.gens)
}

func (m *memory) read(_ context.Context, firstGen, last int64) (map[int64][]secret, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return nil, errAway
	}
	found := make(map[int64][]secret)
	for g := firstGen; g <= last; g++ {
		found[g] = slices.Clone(m.gens[g])
	}
	return found, nil
}

func (m *memory) write(_ context.Context, g int64, proposed secret, also []secret) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return errAway
	}
	if len(m.gens[g]) == 0 {
		m.gens[g] = []secret{proposed}
	}
	for _, s := range also {
		if !slices.Contains(m.gens[g], s) && len(m.gens[g]) < maxSecrets {
			m.gens[g] = append(m.gens[g], s)
		}
	}
	return nil
}

func (m *memory) close() {}

// snapshot returns the secrets that r has installed.
func (r *Ring) snapshot() []secret {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.keys)
}

// opens reports whether a new ticket by a resumes on b.
func opens(a, b *Ring) bool { return slices.Contains(b.snapshot(), a.snapshot()[0]) }
