package main

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

// traffic is sessions that come without a pause, of which every step has to go well.
type traffic struct {
	wg       sync.WaitGroup
	stop     chan struct{}
	sessions atomic.Int64
	mu       sync.Mutex
	failed   []error
}

// drive keeps so many clients busy on addr: greeting, STARTTLS, some commands with
// pauses between them, and QUIT.
func drive(addr string, clients int) *traffic {
	f := &traffic{stop: make(chan struct{})}
	for i := range clients {
		f.wg.Add(1)
		go func() {
			defer f.wg.Done()
			for n := 0; ; n++ {
				select {
				case <-f.stop:
					return
				default:
				}
				if err := oneSession(addr, time.Duration((i+n)%7)*10*time.Millisecond); err != nil {
					f.mu.Lock()
					f.failed = append(f.failed, err)
					f.mu.Unlock()
					continue
				}
				f.sessions.Add(1)
			}
		}()
	}
	return f
}

func oneSession(addr string, pause time.Duration) error {
	c, err := enginetest.Dial(addr)
	if err != nil {
		return fmt.Errorf("greeting: %w", err)
	}
	defer c.Close()
	time.Sleep(pause) // so that some hand-overs fall between greeting and STARTTLS
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	for range 2 {
		time.Sleep(pause)
		if err := c.Noop(); err != nil {
			return fmt.Errorf("NOOP: %w", err)
		}
	}
	if err := c.Quit(); err != nil {
		return fmt.Errorf("QUIT: %w", err)
	}
	return nil
}

// check ends the traffic. No session may have failed.
func (f *traffic) check(t *testing.T, least int64) {
	t.Helper()
	close(f.stop)
	f.wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.failed) > 0 {
		t.Errorf("%d sessions failed, the first: %v", len(f.failed), f.failed[0])
	}
	if n := f.sessions.Load(); n < least {
		t.Errorf("only %d sessions", n)
	} else {
		t.Logf("%d sessions", n)
	}
}

func TestHandOverTenTimesUnderLoad(t *testing.T) {
	addr := freeAddress(t)
	p := enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" + listener(addr, "./drop") + withAdmin})
	load := drive(addr, 16)
	long := connect(t, enginetest.DialSTARTTLS, addr) // of the first process, all the time
	for range 10 {
		time.Sleep(300 * time.Millisecond)
		p.HandOver()
		if err := long.Noop(); err != nil {
			t.Fatal("a session of the first process:", err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	load.check(t, 100)
	for range 5 { // and not by one that has handed over
		if page := adminPage(t, p, "/"); !strings.Contains(page, fmt.Sprintf(">%d</span>", p.PID())) {
			t.Error("the operator's address is not the new process's")
		}
	}
	long.deliver(message)
	checkDelivered(t, p, message)
	long.quit()
	if n := strings.Count(p.Log(), "retiring: another process has the listeners"); n != 10 {
		t.Errorf("%d processes have retired", n)
	}
	checkStatus(t, p.Stop(), exitOK)
}

// TestFailedHandOverLeavesTheListenersAsTheyWere: a descriptor that was passed on is
// the same socket. Had it become blocking, accepting would hang, and so would the end.
func TestFailedHandOverLeavesTheListenersAsTheyWere(t *testing.T) {
	addr := freeAddress(t)
	good := "listeners:\n" + listener(addr, "./drop")
	p := enginetest.Start(t, enginetest.Config{YAML: good, Expect: regexp.MustCompile("HAND-OVER FAILED, this process goes on")})
	p.Reload(good)
	bad := p.ConfigFile()
	if err := os.WriteFile(bad, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR2)
	logged(t, p, "HAND-OVER FAILED")
	load := drive(addr, 4)
	time.Sleep(300 * time.Millisecond)
	load.check(t, 10)
	began := time.Now()
	checkStatus(t, p.Stop(), exitOK)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
}

// TestEndDuringAHandOverEndsBoth: who stops a service does not wait for its successor.
func TestEndDuringAHandOverEndsBoth(t *testing.T) {
	addr := freeAddress(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "starttlsd")
	if err := os.Link(enginetest.Binary(t), program); err != nil {
		t.Skip("no hard link to the command:", err)
	}
	p := enginetest.Start(t, enginetest.Config{
		YAML:    "listeners:\n" + listener(addr, "./drop"),
		Wrapper: []string{"/bin/sh", "-c", `shift; exec "` + program + `" "$@"`, "sh"},
		Expect:  regexp.MustCompile("HAND-OVER FAILED, this process goes on"),
	})
	c := connect(t, enginetest.DialSTARTTLS, addr)
	// What is started next never serves.
	if err := os.WriteFile(program+".new", []byte("#!/bin/sh\nexec sleep 100\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGUSR2)
	logged(t, p, "handing the listeners over")
	c.deliver(message) // nothing stands still meanwhile
	c.quit()
	began := time.Now()
	checkStatus(t, p.Stop(), exitOK)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("the end took %v", took)
	}
}

func TestHandedOverProcessAcceptsAndEndsAsAnyOther(t *testing.T) {
	addr := freeAddress(t)
	p := enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" + listener(addr, "./drop")})
	p.HandOver()
	connect(t, enginetest.DialSTARTTLS, addr).quit()
	began := time.Now()
	p.Stop()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if _, err := net.Dial("tcp", addr); err == nil {
		t.Error("somebody still listens")
	}
}

// notify is a socket as systemd's for a service's state.
func notify(t *testing.T) (path string, next func() string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return path, func() string {
		t.Helper()
		b := make([]byte, 512)
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal("no word to systemd:", err)
		}
		return string(b[:n])
	}
}

func TestSystemdPassesSocketsAndIsToldTheState(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	addr := ln.Addr().String()
	_ = ln.Close()
	path, next := notify(t)
	good := "listeners:\n" + listener("fd:smtp", "./drop")
	p := enginetest.Start(t, enginetest.Config{
		YAML:  good,
		Files: []*os.File{f, f},
		Env:   []string{"LISTEN_FDS=2", "LISTEN_FDNAMES=smtp:unused", "NOTIFY_SOCKET=" + path},
		// systemd names the process that is meant.
		Wrapper: []string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"},
	})
	if p.Addrs[0] != addr {
		t.Errorf("listens on %v, not on the socket that was passed", p.Addrs)
	}
	logged(t, p, "a socket was passed that no listener is configured for")
	connect(t, enginetest.DialSTARTTLS, addr).quit()
	if got := next(); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	p.Reload(good)
	if got := next(); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("told %q", got)
	}
	if got := next(); got != "READY=1" {
		t.Errorf("told %q", got)
	}
	p.HandOver()
	connect(t, enginetest.DialSTARTTLS, addr).quit()
	told := next() + next() // of the two processes, in any order
	if !strings.Contains(told, "READY=1") || !strings.Contains(told, fmt.Sprintf("MAINPID=%d", p.PID())) {
		t.Errorf("told %q", told)
	}
	p.Stop()
	if got := next(); got != "STOPPING=1" {
		t.Errorf("told %q", got)
	}
}

func TestSocketThatWasNotPassedIsOneLine(t *testing.T) {
	status, _, stderr := command("-config", enginetest.WriteFile(t, "c.yaml", "listeners:\n"+listener("fd:smtp", "./drop")))
	want := "starttlsd: no listening TCP socket with the name smtp was passed; name it with FileDescriptorName=smtp in a systemd socket unit\n"
	if status != exitUsage || stderr != want {
		t.Errorf("status %d, %q", status, stderr)
	}
}
