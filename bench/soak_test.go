package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"starttlsd/engine/enginetest"
)

// What the soak sends: sessions a second, and how many at once.
const (
	soakRate  = 40
	soakWidth = 256
)

// soakConfig ends evil clients soon. A good one has to be slower than 5 s to be
// taken for one.
const soakConfig = `hostname: soak.example
limits:
  handshake: 3s
  command: 5s
  data_stall: 3s
  linger: 1s
  output: 16KiB
  message_size: 2MiB
  messages: 1000
  junk_commands: 1000000
drain: 5s
`

// TestSystemSoak lets good and evil clients of many kinds loose on the command,
// for three minutes or as long as STARTTLSD_SOAK says. No good client may get a
// wrong reply, no acknowledged message may be missing, and when all is over the
// process has to be what it was after a warm-up.
func TestSystemSoak(t *testing.T) {
	systemTest(t)
	duration, err := time.ParseDuration(cmp.Or(os.Getenv("STARTTLSD_SOAK"), "3m"))
	if err != nil {
		t.Fatal("STARTTLSD_SOAK:", err)
	}
	p := startServer(t, soakConfig)
	s := newSoak(p)
	t.Logf("at the start: %v", p.Usage())

	s.run(t, duration/6)
	warm := atRest(t, p)
	t.Logf("after the warm-up: %v", warm)
	s.run(t, duration)
	end := atRest(t, p)
	t.Logf("at the end: %v", end)

	s.report(t)
	s.checkMessages(t, filepath.Join(p.Dir, "drop"))
	checkUsage(t, warm, end)
	goroutines := p.Goroutines() // ends the process
	t.Logf("%d goroutines", goroutines)
	if goroutines >= 60 { // some 40 serve nobody, 16 acceptors a listener among them
		t.Errorf("%d goroutines are left", goroutines)
	}
}

// atRest waits until all connections are gone and the process has had the time
// to give memory back, which it does 5 s after the last handshake.
func atRest(t *testing.T, p *enginetest.Process) enginetest.Usage {
	t.Helper()
	const idle = 20 // listeners, loops and standard files are 15
	enginetest.Eventually(t, "connections gone", func() bool { return p.Usage().Descriptors <= idle })
	time.Sleep(8 * time.Second)
	return p.Usage()
}

// checkUsage compares two moments of rest.
//
// Descriptors have no reason to differ. Go never ends a thread, so their number
// is that of the busiest moment so far, in which 128 file calls may have been
// under way (see backend); a leak with every session passes that. Memory wavers
// with the fragmentation of the heap: 4 MiB, which are 600 bytes for each session
// of the standard three minutes.
func checkUsage(t *testing.T, warm, end enginetest.Usage) {
	t.Helper()
	if end.Descriptors != warm.Descriptors {
		t.Errorf("%d descriptors became %d", warm.Descriptors, end.Descriptors)
	}
	if end.Threads > warm.Threads+128 {
		t.Errorf("%d threads became %d", warm.Threads, end.Threads)
	}
	if end.PSS > warm.PSS+4<<20 {
		t.Errorf("%d bytes of memory became %d", warm.PSS, end.PSS)
	}
}

// soak is the clients' side.
type soak struct {
	starttls, implicit string // addresses
	configs            []*tls.Config
	kinds              []string // each as often as it weighs
	next               atomic.Int64

	mu      sync.Mutex
	sent    map[[sha256.Size]byte]bool // by content: acknowledged
	count   map[string]int             // of sessions, by kind
	wrong   []error
	resumed int
}

func newSoak(p *enginetest.Process) *soak {
	s := &soak{
		starttls: p.Addrs[0],
		implicit: p.Addrs[1],
		sent:     make(map[[sha256.Size]byte]bool),
		count:    make(map[string]int),
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, cache := range []tls.ClientSessionCache{nil, tls.NewLRUClientSessionCache(0)} {
			s.configs = append(s.configs, &tls.Config{
				InsecureSkipVerify: true,
				ServerName:         "soak.example",
				MaxVersion:         version,
				ClientSessionCache: cache,
			})
		}
	}
	for name, k := range soakKinds {
		for range k.weight {
			s.kinds = append(s.kinds, name)
		}
	}
	return s
}

// run starts sessions for the given time, and waits for the last to end.
func (s *soak) run(t *testing.T, duration time.Duration) {
	ctx, cancel := context.WithTimeout(t.Context(), duration)
	defer cancel()
	pace := rate.NewLimiter(soakRate, 1)
	width := make(chan struct{}, soakWidth)
	var sessions sync.WaitGroup
	for pace.Wait(ctx) == nil {
		name := s.kinds[rand.IntN(len(s.kinds))]
		width <- struct{}{}
		sessions.Go(func() {
			defer func() { <-width }()
			s.note(name, soakKinds[name].session(s))
		})
	}
	sessions.Wait()
}

// note counts a session and keeps what was wrong with it.
func (s *soak) note(kind string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[kind]++
	if err != nil {
		s.wrong = append(s.wrong, fmt.Errorf("%s: %w", kind, err))
	}
}

// report wants every kind to have been there, and none to have met anything wrong.
func (s *soak) report(t *testing.T) {
	t.Helper()
	sessions := 0
	for kind := range soakKinds {
		t.Logf("%5d sessions: %s", s.count[kind], kind)
		sessions += s.count[kind]
		if s.count[kind] == 0 {
			t.Error("no session: ", kind)
		}
	}
	t.Logf("%5d sessions in all, %d resumed", sessions, s.resumed)
	if s.resumed == 0 {
		t.Error("no session was resumed")
	}
	if len(s.wrong) > 0 {
		t.Errorf("%d sessions met something wrong, the first of them:\n%v", len(s.wrong), errors.Join(s.wrong[:min(10, len(s.wrong))]...))
	}
}

// message is unlike any other. Sending it has begun.
func (s *soak) message(size int) []byte {
	content := fmt.Appendf(nil, "Subject: %d\r\n\r\n", s.next.Add(1))
	for len(content) < size {
		content = append(content, "A line of the usual length, with a number: 0123456789.\r\n..\r\n\r\n"...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[sha256.Sum256(content)] = false
	return content
}

// acknowledged: the server has taken responsibility for the message.
func (s *soak) acknowledged(content []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent[sha256.Sum256(content)] = true
}

// checkMessages compares what is in the Maildir with what was sent.
func (s *soak) checkMessages(t *testing.T, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "new", "*"))
	if err != nil {
		t.Fatal(err)
	}
	stored := make(map[[sha256.Size]byte]bool)
	for _, name := range names {
		m, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(enginetest.Content(m))
		if _, sent := s.sent[sum]; !sent || stored[sum] {
			t.Errorf("%s, %d bytes: was sent: %v, is there twice: %v", name, len(m), sent, stored[sum])
		}
		stored[sum] = true
	}
	acknowledged, lost := 0, 0
	for sum, ok := range s.sent {
		if ok {
			acknowledged++
			if !stored[sum] {
				lost++
			}
		}
	}
	t.Logf("%5d messages sent, %d acknowledged, %d stored", len(s.sent), acknowledged, len(stored))
	if lost > 0 {
		t.Errorf("%d acknowledged messages are lost", lost)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "tmp", "*")); len(left) > 0 {
		t.Errorf("%d files are left in tmp/", len(left))
	}
}
