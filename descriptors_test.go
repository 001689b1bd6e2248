package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// TestSystemFewDescriptorsAndManyClients sends 400 clients to a server that may
// have 200 descriptors. Each learns at once where it stands, also with a limit
// that promises too much, and the server lives on.
func TestSystemFewDescriptorsAndManyClients(t *testing.T) {
	for name, limit := range map[string]string{
		"automatic limit": "",
		"limit too high":  "limits: {max_connections: 1000}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := startWithFewDescriptors(t, limit)
			crowd := visit(t, p.Addrs[0], 400)
			if len(crowd.served) < 100 {
				t.Errorf("only %d are served", len(crowd.served))
			}
			if crowd.dropped > 0 {
				t.Errorf("%d are dropped without a word", crowd.dropped)
			}
			t.Logf("%d served, %d refused in words", len(crowd.served), crowd.refused)
			for _, nc := range crowd.served[:50] {
				_ = nc.Close()
			}
			checkServesAgain(t, p)
		})
	}
}

// TestSystemAllWhoAreServedMayDeliverAtOnce: every client that is served opens a
// message, which takes a descriptor too, and there are not enough. Those who get
// none wait for one; each message is accepted and stored.
func TestSystemAllWhoAreServedMayDeliverAtOnce(t *testing.T) {
	p := startWithFewDescriptors(t, "")
	served := visit(t, p.Addrs[0], 400).served
	for _, nc := range served {
		_, _ = io.WriteString(nc, "EHLO a\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: half")
	}
	enginetest.Eventually(t, "some messages open", func() bool {
		open, err := filepath.Glob(filepath.Join(p.Dir, "drop", "tmp", "*"))
		return err == nil && len(open) >= 10
	})
	for _, nc := range served {
		_, _ = io.WriteString(nc, "\r\n.\r\nQUIT\r\n")
	}
	for i, nc := range served {
		if replies, err := io.ReadAll(nc); !bytes.Contains(replies, []byte("Accepted as")) {
			t.Errorf("client %d: %q, %v", i, replies, err)
		}
		_ = nc.Close()
	}
	if stored := len(enginetest.Maildir(t, filepath.Join(p.Dir, "drop"))); stored != len(served) {
		t.Errorf("%d accepted, %d stored", len(served), stored)
	}
	checkServesAgain(t, p)
}

func startWithFewDescriptors(t *testing.T, more string) *enginetest.Process {
	t.Helper()
	return enginetest.Start(t, enginetest.Config{
		YAML:    "listeners:\n" + listener("127.0.0.1:0", "./drop") + more,
		Wrapper: []string{"sh", "-c", `ulimit -n 200 && exec "$@"`, "sh"},
	})
}

// crowd is clients by what they were told when they came.
type crowd struct {
	served  []net.Conn
	refused int // 421
	dropped int // nothing
}

func visit(t *testing.T, addr string, n int) (c crowd) {
	t.Helper()
	all := make([]net.Conn, n)
	for i := range all {
		nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		all[i] = nc
	}
	for _, nc := range all {
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		greeting := make([]byte, 512)
		switch n, _ := nc.Read(greeting); {
		case bytes.HasPrefix(greeting[:n], []byte("220 ")):
			c.served = append(c.served, nc)
		case bytes.HasPrefix(greeting[:n], []byte("421 ")):
			c.refused++
		default:
			c.dropped++
		}
	}
	return c
}

// checkServesAgain wants a message through, soon.
func checkServesAgain(t *testing.T, p *enginetest.Process) {
	t.Helper()
	var err error
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = deliverAlone(p.Addrs[0]); err == nil {
			return
		}
	}
	t.Error("the server does not serve again:", err)
}

func deliverAlone(addr string) error {
	c, err := enginetest.DialSTARTTLS(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return errors.Join(enginetest.Deliver(c, message), c.Quit())
}
