package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// A data connection that never comes: the server does not hear of the transfer, and
// the session goes on.
func TestFTPDataConnectionThatNeverComes(t *testing.T) {
	s, p := startFTP(t, "", "limits: {data_connect: 300ms, handshake: 1s}\n")
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	c.epsv()
	c.ask(ask{"STOR f\r\n", "^425"})
	c.epsv()
	time.Sleep(500 * time.Millisecond)
	c.ask(ask{"STOR f\r\n", "^425"})
	c.ask(ask{"NOOP\r\n", "^200"})
	if s.commands("STOR") > 0 {
		t.Error("the server was told to store")
	}
	nc := c.dialData(c.epsv(), "127.0.0.1") // it comes, and says nothing
	c.ask(ask{"STOR f\r\n", "^150"})
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if n, err := nc.Read(make([]byte, 1)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent data connection sees %v", err)
	}
	c.until("^522 ")
}

// The range is exhausted: 425, and there are ports again when others are done.
func TestFTPPortsRunOutAndComeBack(t *testing.T) {
	port := enginetest.FreePort(t)
	s, p := startFTP(t, ", passive: {ports: "+port+"}", "")
	s.files["f"] = []byte("content")
	first, second := ftpLogin(t, p.Addrs[0], tls.VersionTLS13), ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	if got := first.epsv(); fmt.Sprint(got) != port {
		t.Fatalf("port %d, want %s", got, port)
	}
	second.ask(ask{"EPSV\r\n", "^425"})
	second.ask(ask{"RETR f\r\n", "^425"})
	first.epsv() // its own is given back for it
	first.ask(ask{"QUIT\r\n", "^221"})
	enginetest.Eventually(t, "a port", func() bool {
		second.send("EPSV\r\n")
		return strings.HasPrefix(second.until(second.d.final), "229")
	})
	for range 20 {
		if got, reply := second.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
			t.Fatalf("%q, %q", got, reply)
		}
	}
}

// 10,000 ports that nobody comes to leave nothing behind.
func TestFTPManyPortsWithoutATransfer(t *testing.T) {
	_, p := startFTP(t, "", "limits: {data_connect: 2s}\n")
	before := p.Usage().Descriptors
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
			for range 1000 {
				c.send("EPSV\r\n")
				if reply := c.until(c.d.final); !strings.HasPrefix(reply, "229") {
					t.Errorf("%q", reply)
					return
				}
			}
			c.ask(ask{"QUIT\r\n", "^221"})
		})
	}
	wg.Wait()
	enginetest.Eventually(t, "all descriptors back", func() bool { return p.Usage().Descriptors <= before })
	if n := p.Goroutines(); n > 80 {
		t.Errorf("%d goroutines are left", n)
	}
}

// A session that waits for its user costs no goroutine, before and after a transfer.
func TestFTPIdleSessionsAreParked(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["f"] = []byte("content")
	for range 200 {
		c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
		if got, reply := c.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
			t.Fatalf("%q, %q", got, reply)
		}
		c.epsv()
	}
	time.Sleep(100 * time.Millisecond)
	if n := p.Goroutines(); n > 80 {
		t.Errorf("%d goroutines for 200 idle sessions", n)
	}
}

// slowly is a download that the client begins and leaves unread.
func slowly(t *testing.T, s *ftpServer, p *enginetest.Process) (*ftpClient, *tls.Conn) {
	t.Helper()
	s.mu.Lock()
	s.files["big"] = make([]byte, 16<<20)
	s.mu.Unlock()
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	tc := c.begin("RETR big")
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c, tc
}

// What is sent while a transfer goes on is answered behind it, also when there is so
// much of it that the client is no longer read from.
func TestFTPCommandsWaitForATransfer(t *testing.T) {
	s, p := startFTP(t, "", "")
	c, tc := slowly(t, s, p)
	const many = 5000
	c.send(strings.Repeat("NOOP\r\n", many))
	time.Sleep(100 * time.Millisecond)
	if n := s.commands("NOOP"); n > 0 {
		t.Errorf("%d commands were passed on within a transfer", n)
	}
	if n, err := io.Copy(io.Discard, tc); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.until("^226 ")
	for range many {
		c.until("^200 ")
	}
}

// A transfer that gets on has as long as it takes: the dialogue's limits wait for it.
func TestFTPSlowTransferIsNoIdleSession(t *testing.T) {
	s, p := startFTP(t, "", "limits: {command: 300ms, reply: 300ms, idle: 300ms}\n")
	c, tc := slowly(t, s, p)
	buf := make([]byte, 1<<20)
	for range 4 {
		time.Sleep(300 * time.Millisecond)
		if _, err := io.ReadFull(tc, buf); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.Copy(io.Discard, tc); n != 12<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.until("^226 ")
	if rest, err := io.ReadAll(c.r); string(rest) != "421 Timed out\r\n" || err != nil {
		t.Errorf("idle behind it: %q, %v", rest, err)
	}
}

// ABOR ends a transfer that nobody reads, with its Telnet interrupt before it.
func TestFTPAbortedDownload(t *testing.T) {
	s, p := startFTP(t, "", "")
	c, tc := slowly(t, s, p)
	c.send("\xff\xf4\xff\xf2ABOR\r\n")
	c.until("^426 ")
	c.until("^200 ") // the stub's to ABOR
	if _, err := io.Copy(io.Discard, tc); err == nil {
		t.Error("the download has ended as if it were whole")
	}
	c.ask(ask{"NOOP\r\n", "^200"})
}

// A client that leaves in the middle takes its transfer along.
func TestFTPClientThatLeavesInATransfer(t *testing.T) {
	s, p := startFTP(t, "", "")
	before := p.Usage().Descriptors
	for i := range 20 {
		c, tc := slowly(t, s, p)
		if i%2 == 0 {
			_ = tc.NetConn().Close()
		}
		_ = c.Conn.(*tls.Conn).NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.Conn.(*tls.Conn).NetConn().Close()
		defer tc.NetConn().Close()
	}
	enginetest.Eventually(t, "all descriptors back", func() bool { return p.Usage().Descriptors <= before })
}

// At the end transfers are given the time to end, and no more.
func TestFTPDrainWaitsForATransfer(t *testing.T) {
	s, p := startFTP(t, "", "drain: 30s\n")
	c, tc := slowly(t, s, p)
	p.Signal(syscall.SIGTERM)
	time.Sleep(200 * time.Millisecond)
	if n, err := io.Copy(io.Discard, tc); n != 16<<20 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.until("^226 ")
	c.ask(ask{"QUIT\r\n", "^221"})
	if status := p.Wait(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	s, p = startFTP(t, "", "drain: 200ms\n")
	_, tc = slowly(t, s, p)
	began := time.Now()
	if status := p.Stop(); status != 1 || time.Since(began) > 10*time.Second {
		t.Errorf("exit status %d after %v", status, time.Since(began))
	}
	if _, err := io.Copy(io.Discard, tc); err == nil {
		t.Error("the download has ended as if it were whole")
	}
}

// The ports of a process that has handed over are its own until its sessions end.
func TestFTPHandOver(t *testing.T) {
	low, _ := strconv.Atoi(enginetest.FreePort(t))
	s, p := startFTP(t, fmt.Sprintf(", passive: {ports: %d-%d}", low, low+3), "")
	s.files["f"] = []byte("content")
	old := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	port := old.epsv()
	p.HandOver()
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	for range 8 {
		if got, reply := c.retrieve("f"); string(got) != "content" || !strings.HasPrefix(reply, "226") {
			t.Fatalf("with the new process: %q, %q", got, reply)
		}
	}
	nc := old.dialData(port, "127.0.0.1")
	old.ask(ask{"RETR f\r\n", "^150"})
	if got, err := io.ReadAll(tls.Client(nc, old.cfg)); string(got) != "content" || err != nil {
		t.Errorf("with the old process: %q, %v", got, err)
	}
	old.until("^226 ")
}

// A server that is done, and times its client out before that has read all, does no harm.
func TestFTPServerThatEndsBeforeItsDownload(t *testing.T) {
	s, p := startFTP(t, "", "")
	s.files["parting"] = make([]byte, 1<<20)
	c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
	if got, reply := c.retrieve("parting"); len(got) != 1<<20 || !strings.HasPrefix(reply, "226") {
		t.Errorf("%d bytes, %q", len(got), reply)
	}
	if rest, err := io.ReadAll(c.r); string(rest) != "421 Timeout.\r\n" || err != nil {
		t.Errorf("behind it: %q, %v", rest, err)
	}
}

// A client that ends its direction behind its last command gets what it has asked for.
func TestFTPClientThatHasSaidAll(t *testing.T) {
	s, p := startFTP(t, "", "limits: {reply: 20s}\n")
	for _, command := range []string{"STOR f", "RETR f"} {
		for name, end := range map[string]func(*tls.Conn) error{
			"close_notify": (*tls.Conn).CloseWrite,
			"FIN": func(tc *tls.Conn) error {
				_ = tc.CloseWrite()
				return tc.NetConn().(*net.TCPConn).CloseWrite()
			},
		} {
			c := ftpLogin(t, p.Addrs[0], tls.VersionTLS13)
			tc := c.begin(command)
			_ = end(c.Conn.(*tls.Conn))
			time.Sleep(100 * time.Millisecond) // it is seen before the handshake
			if command == "STOR f" {
				_, _ = io.WriteString(tc, "content")
				_ = tc.CloseWrite()
				_ = tc.NetConn().(*net.TCPConn).CloseWrite()
			}
			_, _ = io.ReadAll(tc)
			rest, err := io.ReadAll(c.r)
			if !strings.HasSuffix(string(rest), "226 done\r\n") || err != nil {
				t.Errorf("%s, %s: %q, %v", command, name, rest, err)
			}
			if content, torn, _ := s.upload("f"); string(content) != "content" || torn != nil {
				t.Errorf("%s, %s: stored %q, %v", command, name, content, torn)
			}
		}
	}
}
