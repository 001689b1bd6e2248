package backend

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKilledProcessLosesNoCommittedMessage kills a delivering process at a
// random moment, again and again in one Maildir. Each name that it printed after
// Commit has to be in new/, and whatever is there has to be whole.
func TestKilledProcessLosesNoCommittedMessage(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 3
	}
	path := t.TempDir()
	m := openMaildir(t, path)
	committed := 0
	for range rounds {
		for _, name := range killDeliveries(t, path) {
			committed++
			if _, err := os.Stat(filepath.Join(m.new, name)); err != nil {
				t.Error("committed and lost:", err)
			}
		}
	}
	found := files(t, m.new)
	for _, name := range found {
		body, err := os.ReadFile(filepath.Join(m.new, name))
		if err != nil {
			t.Fatal(err)
		}
		if !isWhole(body) {
			t.Errorf("%s: %d bytes, not a whole message", name, len(body))
		}
	}
	t.Logf("%d rounds: %d committed, %d in new/, %d left in tmp/",
		rounds, committed, len(found), len(files(t, m.tmp)))
}

// killDeliveries runs a child that delivers into path, kills it a moment after
// its first message, and returns the names it has printed.
func killDeliveries(t *testing.T, path string) []string {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var names []string
	lines := bufio.NewReader(out)
	for {
		// A line is one write, shorter than PIPE_BUF: the kill cuts none in two.
		line, err := lines.ReadString('\n')
		if err != nil {
			break
		}
		names = append(names, strings.TrimSuffix(line, "\n"))
		if len(names) == 1 {
			kill := time.AfterFunc(rand.N(50*time.Millisecond), func() { child.Process.Kill() })
			defer kill.Stop()
		}
	}
	if err := child.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatal("the child ended before it was killed:", err)
	}
	return names
}

// deliverForever is the child: eight goroutines deliver messages of random
// size and print each name once it is committed.
func deliverForever(path string) error {
	m, err := OpenMaildir(path)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for range 8 {
		go func() {
			for {
				msg, err := m.Begin(nil)
				if err != nil {
					failed <- err
				}
				body := wholeMessage(rand.IntN(64 << 10))
				for chunk := range slices.Chunk(body, 4096) {
					if _, err := msg.Write(chunk); err != nil {
						failed <- err
					}
				}
				if err := msg.Commit(); err != nil {
					failed <- err
				}
				fmt.Println(msg.(*message).name)
			}
		}()
	}
	return <-failed
}

// wholeMessage returns size bytes of content behind their checksum.
func wholeMessage(size int) []byte {
	body := make([]byte, sha256.Size+size)
	content := body[sha256.Size:]
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	sum := sha256.Sum256(content)
	copy(body, sum[:])
	return body
}

func isWhole(body []byte) bool {
	if len(body) < sha256.Size {
		return false
	}
	sum := sha256.Sum256(body[sha256.Size:])
	return bytes.Equal(sum[:], body[:sha256.Size])
}
