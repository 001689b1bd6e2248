package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
)

const (
	idleConnections = 10_000
	dialers         = 16
	dialTime        = 20 * time.Second // of one connection, until it is idle
)

// systemTest skips tests that take minutes, unless they are asked for.
func systemTest(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc, which needs Linux")
	}
	if os.Getenv("STARTTLSD_SYSTEM") != "1" && os.Getenv("STARTTLSD_INTEROP") != "1" {
		t.Skip("takes minutes: set STARTTLSD_SYSTEM=1 or STARTTLSD_INTEROP=1")
	}
	t.Cleanup(enginetest.RemoveBinary)
}

// TestSystemIdleConnectionsAreCheap holds 10,000 connections open, each after an
// EHLO, and looks at what the server's process has grown by.
func TestSystemIdleConnectionsAreCheap(t *testing.T) {
	systemTest(t)
	for _, test := range []struct {
		name  string
		limit int // bytes a connection
		dial  func(from, to string) (net.Conn, error)
	}{
		{"plaintext", 1536, dialPlain},
		{"upgraded", 12 << 10, dialUpgraded},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := startServer(t, "limits: {command: 1h}\n")
			before := p.Usage()
			began := time.Now()
			conns := dialMany(t, p.Addrs[0], test.dial)
			t.Logf("%d connections in %v", len(conns), time.Since(began).Round(time.Millisecond))
			time.Sleep(30 * time.Second) // what is measured is a server that has come to rest
			after := p.Usage()
			each := (after.PSS - before.PSS) / len(conns)
			t.Logf("before: %v; after: %v; %d bytes a connection", before, after, each)
			if each > test.limit {
				t.Errorf("%d bytes a connection, want %d at most", each, test.limit)
			}
			if after.Descriptors < len(conns) {
				t.Errorf("%d descriptors: not all connections are there", after.Descriptors)
			}
			goroutines := p.Goroutines() // ends the process
			t.Logf("%d goroutines", goroutines)
			if goroutines >= 60 {
				t.Errorf("%d goroutines, want less than 60", goroutines)
			}
			runtime.KeepAlive(conns)
		})
	}
}

// startServer runs the command with a listener for STARTTLS and one for implicit
// TLS, both into ./drop, and with more in its configuration.
func startServer(t *testing.T, more string) *enginetest.Process {
	t.Helper()
	const listener = "  - {address: 127.0.0.1:0, protocol: smtp, tls: %s, backend: 'maildir:./drop'}\n"
	return enginetest.Start(t, enginetest.Config{
		YAML: "listeners:\n" + fmt.Sprintf(listener, "starttls") + fmt.Sprintf(listener, "implicit") + more,
	})
}

// dialMany opens the connections from several addresses, because one has too few ports.
func dialMany(t *testing.T, addr string, dial func(from, to string) (net.Conn, error)) []net.Conn {
	t.Helper()
	conns := make([]net.Conn, idleConnections)
	t.Cleanup(func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	var next atomic.Int64
	failed := make(chan error, dialers)
	for range dialers {
		go func() {
			for i := next.Add(1) - 1; i < idleConnections; i = next.Add(1) - 1 {
				var err error
				if conns[i], err = dial(fmt.Sprintf("127.0.0.%d", 2+i%8), addr); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range dialers {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	return conns
}

func dialPlain(from, to string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: dialTime, KeepAlive: -1}
	nc, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(dialTime))
	if err := talk(nc, "", "220 "); err != nil {
		return nc, err
	}
	return nc, talk(nc, "EHLO idle.example\r\n", "250 ")
}

func dialUpgraded(from, to string) (net.Conn, error) {
	nc, err := dialPlain(from, to)
	if err != nil {
		return nc, err
	}
	if err := talk(nc, "STARTTLS\r\n", "220 "); err != nil {
		return nc, err
	}
	tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	return tc, talk(tc, "EHLO idle.example\r\n", "250 ")
}

// talk writes a command and reads until the last line of the reply, which has to
// begin with want. Nothing may follow.
func talk(rw io.ReadWriter, command, want string) error {
	if _, err := io.WriteString(rw, command); err != nil {
		return err
	}
	var reply []byte
	for buf := make([]byte, 512); ; {
		n, err := rw.Read(buf)
		reply = append(reply, buf[:n]...)
		if last, whole := lastLine(string(reply)); whole {
			if !strings.HasPrefix(last, want) {
				return fmt.Errorf("%q: got %q, want %q", command, reply, want)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("%q: got %q, then %w", command, reply, err)
		}
	}
}

// lastLine is the line of a reply that ends it, if that is there.
func lastLine(reply string) (line string, whole bool) {
	rest, whole := strings.CutSuffix(reply, "\r\n")
	line = rest[strings.LastIndexByte(rest, '\n')+1:]
	return line, whole && len(line) > 3 && line[3] == ' '
}
