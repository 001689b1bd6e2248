package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/bench/stub"
	"starttlsd/engine/enginetest"
)

const (
	idlePairs     = 8000
	mostOfAPair   = 13_000           // bytes of memory
	quietAfter    = 30 * time.Second // what is measured is a server that has come to rest
	idlersAtATime = 16
)

// idler is an IMAP client in IDLE.
type idler struct {
	net.Conn
	r *bufio.Reader
}

func (c *idler) ask(command, want string) error {
	if _, err := io.WriteString(c, command); err != nil {
		return err
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil || strings.HasPrefix(line, "a ") && !strings.HasPrefix(line, want) {
			return fmt.Errorf("%q: got %q, %w", command, line, err)
		}
		if strings.HasPrefix(line, want) {
			return nil
		}
	}
}

func dialIdler(from, to string) (*idler, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: dialTime, KeepAlive: -1}
	nc, err := d.Dial("tcp", to)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(10 * time.Minute))
	c := &idler{nc, bufio.NewReaderSize(nc, 128)}
	for _, step := range [][2]string{{"", "* OK"}, {"a STARTTLS\r\n", "a OK"}, {}, {"a LOGIN u p\r\n", "a OK"}, {"a IDLE\r\n", "+"}} {
		if step[1] == "" {
			tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
			c.Conn, c.r = tc, bufio.NewReaderSize(tc, 128)
			err = tc.Handshake()
		} else {
			err = c.ask(step[0], step[1])
		}
		if err != nil {
			return c, err
		}
	}
	return c, nil
}

// TestSystemIdlePairsAreCheap holds 8,000 clients in IDLE behind STARTTLS, with a
// backend's connection each, and looks at what the server's process has grown by. Then
// they talk: everything crosses, and soon.
func TestSystemIdlePairsAreCheap(t *testing.T) {
	systemTest(t)
	backend, err := stub.New(1000)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
		"listeners:\n  - {address: 127.0.0.1:0, protocol: imap, backend: 'tcp://%s'}\n", backend.Addr())})
	before := p.Usage()
	clients := make([]*idler, idlePairs)
	t.Cleanup(func() {
		for _, c := range clients {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	width := make(chan struct{}, idlersAtATime)
	var all sync.WaitGroup
	for i := range clients {
		width <- struct{}{}
		all.Go(func() {
			defer func() { <-width }()
			var err error
			if clients[i], err = dialIdler(fmt.Sprintf("127.0.0.%d", 2+i%8), p.Addrs[0]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		return
	}
	time.Sleep(quietAfter)
	after := p.Usage()
	each := (after.PSS - before.PSS) / idlePairs
	t.Logf("before: %v; after: %v; %d bytes a pair", before, after, each)
	if each > mostOfAPair {
		t.Errorf("%d bytes a pair, want %d at most", each, mostOfAPair)
	}
	if after.Descriptors < 2*idlePairs {
		t.Errorf("%d descriptors: not all pairs are there", after.Descriptors)
	}
	var took []time.Duration
	for i := 0; i < idlePairs; i += 8 {
		began := time.Now()
		if err := clients[i].ask("DONE\r\n", "a OK"); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(began))
		if err := clients[i].ask("a FETCH 1 BODY[]\r\n", "a OK"); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(took)
	t.Logf("the first bytes after the silence cross there and back in %v at the median, %v at most", took[len(took)/2], took[len(took)-1])
	time.Sleep(time.Second)      // and all are back on their loop
	goroutines := p.Goroutines() // ends the process
	t.Logf("%d goroutines", goroutines)
	if goroutines >= 60 {
		t.Errorf("%d goroutines, want less than 60", goroutines)
	}
	runtime.KeepAlive(clients)
}

// TestSystemSlowSidesCostNoMemory has one client read 200 MiB at a kilobyte a second,
// and one upload to a backend that does not read: memory stays flat, and another
// session is served meanwhile.
func TestSystemSlowSidesCostNoMemory(t *testing.T) {
	systemTest(t)
	const size = 200 << 20
	backend, err := stub.New(size)
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // logs in, and then reads nothing
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = nc.Close() })
			_, _ = io.WriteString(nc, "* OK [CAPABILITY IMAP4rev1] stuck\r\n")
			if line, err := bufio.NewReaderSize(nc, 16).ReadString('\n'); err == nil && strings.Contains(line, "LOGIN") {
				_, _ = io.WriteString(nc, "a OK\r\n+ idling\r\n")
			}
		}
	}()
	p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
		"listeners:\n  - {address: 127.0.0.1:0, protocol: imap, backend: 'tcp://%s'}\n  - {address: 127.0.0.1:0, protocol: imap, backend: 'tcp://%s'}\n",
		backend.Addr(), ln.Addr())})
	reader, writer, other := mustIdle(t, p.Addrs[0]), mustIdle(t, p.Addrs[1]), mustIdle(t, p.Addrs[0])
	before := p.Usage()
	if err := reader.ask("DONE\r\n", "a OK"); err != nil {
		t.Fatal(err)
	}
	if err := reader.ask("a FETCH 1 BODY[]\r\n", "* 1 FETCH"); err != nil {
		t.Fatal(err)
	}
	go func() { // until the test ends
		piece := make([]byte, 64<<10)
		for {
			if _, err := writer.Write(piece); err != nil {
				return
			}
		}
	}()
	for second := range 15 {
		if _, err := io.CopyN(io.Discard, reader.r, 1000); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := other.ask(map[bool]string{true: "DONE\r\n", false: "a NOOP\r\n"}[second == 0], "a OK"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("another session waits %v", took)
		}
		time.Sleep(time.Second)
	}
	after := p.Usage()
	t.Logf("before: %v; after: %v", before, after)
	if grown := after.PSS - before.PSS; grown > 2<<20 {
		t.Errorf("grown by %d bytes", grown)
	}
}

func mustIdle(t *testing.T, addr string) *idler {
	t.Helper()
	c, err := dialIdler("127.0.0.1", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}
