package backend

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// TestSystemKillDuringDeliveriesLosesNoAcknowledgedMessage kills the whole
// command at random moments while clients deliver over STARTTLS, again and again
// in one Maildir. Every message that a client saw a 250 for has to be there byte
// for byte, and nothing that is not a whole message may be in new/.
func TestSystemKillDuringDeliveriesLosesNoAcknowledgedMessage(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 2
	}
	t.Cleanup(enginetest.RemoveBinary)
	path := filepath.Join(t.TempDir(), "drop")
	sent := &ledger{state: make(map[[sha256.Size]byte]bool)}
	for range rounds {
		killAmidDeliveries(t, path, sent)
	}
	dead := age(t, filepath.Join(path, "tmp"))

	p := startOn(t, path) // on what the dead have left
	if left, err := filepath.Glob(filepath.Join(path, "tmp", "*")); len(left) > 0 {
		t.Errorf("%d of %d stale files are still in tmp/, %v", len(left), dead, err)
	}
	c, err := enginetest.DialSTARTTLS(p.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	content := numbered(0)
	sent.begin(content)
	if err := enginetest.Deliver(c, content); err != nil {
		t.Error("the first delivery after the restart:", err)
	}
	sent.acknowledge(content)
	acknowledged, stored := sent.check(t, path)
	t.Logf("%d rounds: %d acknowledged, %d stored, %d left in tmp/ by the dead", rounds, acknowledged, stored, dead)
}

func startOn(t *testing.T, path string) *enginetest.Process {
	t.Helper()
	return enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
		"listeners:\n  - {address: 127.0.0.1:0, protocol: smtp, backend: %q, limits: {messages: 100000}}\n", "maildir:"+path)})
}

// killAmidDeliveries starts the command, has eight clients deliver, and kills it
// a moment after the first acknowledgement.
func killAmidDeliveries(t *testing.T, path string, sent *ledger) {
	t.Helper()
	p := startOn(t, path)
	acknowledged := make(chan struct{}, 1)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			c, err := enginetest.DialSTARTTLS(p.Addrs[0])
			if err != nil {
				return // killed before its turn
			}
			defer c.Close()
			for number := 1; ; number++ {
				content := numbered(number)
				sent.begin(content)
				if enginetest.Deliver(c, content) != nil {
					return
				}
				sent.acknowledge(content)
				select {
				case acknowledged <- struct{}{}:
				default:
				}
			}
		})
	}
	select {
	case <-acknowledged:
	case <-time.After(30 * time.Second):
		t.Error("nothing was acknowledged")
	}
	time.Sleep(rand.N(100 * time.Millisecond)) // the random moment
	p.Kill()
	clients.Wait()
}

// numbered is a message unlike any other, of up to 128 KiB.
func numbered(number int) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Subject: %d\r\nMessage-ID: <%x@example.org>\r\n\r\n", number, rand.Uint64())
	line := strings.Repeat("x.\t", 20)
	for range rand.IntN(128 << 10 / len(line)) {
		fmt.Fprintf(&b, "%s\r\n", line[rand.IntN(len(line)):]) // some begin with a dot, some are empty
	}
	return b.Bytes()
}

// ledger is what was sent: by checksum, whether it was acknowledged.
type ledger struct {
	mu    sync.Mutex
	state map[[sha256.Size]byte]bool
}

func (l *ledger) begin(content []byte) { l.set(content, false) }

func (l *ledger) acknowledge(content []byte) { l.set(content, true) }

func (l *ledger) set(content []byte, acknowledged bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state[sha256.Sum256(content)] = acknowledged
}

// check compares the ledger with the Maildir and counts both.
func (l *ledger) check(t *testing.T, path string) (acknowledged, stored int) {
	t.Helper()
	seen := make(map[[sha256.Size]byte]bool)
	for name, m := range enginetest.Maildir(t, path) {
		stored++
		sum := sha256.Sum256(enginetest.Content(m))
		if _, sent := l.state[sum]; !sent {
			t.Errorf("%s: %d bytes, not a whole message that was sent", name, len(m))
		}
		if seen[sum] {
			t.Errorf("%s is there twice", name)
		}
		seen[sum] = true
	}
	for sum, ok := range l.state {
		if !ok {
			continue
		}
		acknowledged++
		if !seen[sum] {
			t.Error("a message was acknowledged and is lost")
		}
	}
	return acknowledged, stored
}

// age makes all files in dir as old as remains have to be before they are removed.
func age(t *testing.T, dir string) (files int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		old := time.Now().Add(-staleAge - time.Hour)
		if err := os.Chtimes(name, old, old); err != nil {
			t.Fatal(err)
		}
	}
	return len(names)
}
