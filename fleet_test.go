package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// fleet starts two nodes with SMTP and, on the second listener, IMAP, whose keys come
// from one place.
func fleet(t *testing.T, keys string, rotate time.Duration) (nodes []*enginetest.Process) {
	t.Helper()
	cert, key := pairFiles(t, "mx.example")
	for range 2 {
		nodes = append(nodes, enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
			"tls: {certificates: [{cert: %q, key: %q}], session_tickets: {keys: %q, rotate: %v}}\n", cert, key, keys, rotate) +
			"listeners:\n" + listener("127.0.0.1:0", "./drop") +
			"  - {address: \"127.0.0.1:0\", protocol: imap, backend: \"tcp://127.0.0.1:1\"}\n"}))
	}
	return nodes
}

// session upgrades with what cache holds, and reports whether that resumed.
func session(t *testing.T, addr string, version uint16, cache tls.ClientSessionCache) (resumed bool) {
	t.Helper()
	c, err := enginetest.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cfg := &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example", ClientSessionCache: cache, MinVersion: version, MaxVersion: version}
	if err := c.StartTLS(cfg); err != nil {
		t.Fatal(err)
	}
	if err := c.Noop(); err != nil { // reads the ticket, too
		t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	_ = c.Quit()
	return state.DidResume
}

// begun is a cache with a session that node has begun.
func begun(t *testing.T, node *enginetest.Process, version uint16) tls.ClientSessionCache {
	t.Helper()
	cache := tls.NewLRUClientSessionCache(1)
	if session(t, node.Addrs[0], version, cache) {
		t.Error("resumed out of nothing")
	}
	return cache
}

func checkCrosswise(t *testing.T, nodes []*enginetest.Process) {
	t.Helper()
	for _, version := range versions {
		for i := range nodes {
			if !session(t, nodes[1-i].Addrs[0], version, begun(t, nodes[i], version)) {
				t.Errorf("%s: a session of node %d does not resume on the other", tls.VersionName(version), i)
			}
		}
	}
}

func TestTicketsOfOneNodeResumeOnAnotherByAFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 4)), 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := fleet(t, "file:"+secret, 12*time.Hour)
	checkCrosswise(t, nodes)
	cache := begun(t, nodes[0], tls.VersionTLS13)
	nodes[0].HandOver()
	if !session(t, nodes[0].Addrs[0], tls.VersionTLS13, cache) {
		t.Error("a session does not resume after a hand-over")
	}
	nodes[0].Stop()
	nodes[1].Stop()
}

// TestTicketsOfOneProtocolDoNotResumeOnAnother: who controls one service must not be
// taken for the other (golang/go#77217).
func TestTicketsOfOneProtocolDoNotResumeOnAnother(t *testing.T) {
	node := fleet(t, "auto", 12*time.Hour)[0]
	for _, version := range versions {
		cache := begun(t, node, version)
		if !session(t, node.Addrs[0], version, cache) {
			t.Error("does not resume where it began")
		}
		c := connectIMAP(t, node.Addrs[1])
		tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example", ClientSessionCache: cache, MaxVersion: version})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		if tc.ConnectionState().DidResume {
			t.Errorf("%s: a session of SMTP goes on as one of IMAP", tls.VersionName(version))
		}
	}
}

func TestReloadKeepsTheTicketKeys(t *testing.T) {
	cert, key := pairFiles(t, "mx.example")
	yaml := certificates(cert, key) + "listeners:\n" + listener("127.0.0.1:0", "./drop")
	p := enginetest.Start(t, enginetest.Config{YAML: yaml})
	cache := begun(t, p, tls.VersionTLS13)
	p.Reload(yaml)
	if !session(t, p.Addrs[0], tls.VersionTLS13, cache) {
		t.Error("a session of before does not resume")
	}
	p.Reload(yaml + "  \n" + "drain: 5s\n")
	p.Stop()
}

// TestInteropTicketsOfOneNodeResumeOnAnotherByRedis goes on across rotations and a
// restart of Redis, which has lost everything.
func TestInteropTicketsOfOneNodeResumeOnAnotherByRedis(t *testing.T) {
	enginetest.Need(t, "redis-server")
	const rotate = 4 * time.Second
	port := enginetest.FreePort(t)
	redis := func() *exec.Cmd {
		cmd := exec.Command("redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		enginetest.Listens(t, port)
		return cmd
	}
	stop := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	first := redis()
	nodes := fleet(t, "redis://127.0.0.1:"+port+"/3", rotate)
	time.Sleep(rotate) // both have seen both
	checkCrosswise(t, nodes)

	old := begun(t, nodes[0], tls.VersionTLS13)
	began := time.Now()
	for time.Since(began) < 2*rotate { // two rotations
		checkCrosswise(t, nodes)
		time.Sleep(200 * time.Millisecond)
	}
	if !session(t, nodes[1].Addrs[0], tls.VersionTLS13, old) {
		t.Error("a session does not resume after two rotations")
	}
	stop(first)
	checkCrosswise(t, nodes)
	time.Sleep(time.Second)
	second := redis()
	defer stop(second)
	for began := time.Now(); time.Since(began) < 3*rotate; time.Sleep(200 * time.Millisecond) {
		checkCrosswise(t, nodes)
	}
	for _, n := range nodes {
		n.Stop()
	}
}

// connectIMAP is an IMAP connection that has the go-ahead.
func connectIMAP(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	r := textproto.NewReader(bufio.NewReader(nc))
	for _, exchange := range [][2]string{{"", "* OK"}, {"a STARTTLS\r\n", "a OK"}} {
		if _, err := io.WriteString(nc, exchange[0]); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadLine(); !strings.HasPrefix(line, exchange[1]) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	return nc
}
