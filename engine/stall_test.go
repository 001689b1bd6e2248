package engine

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// Who takes a KiB in the time that a peer may stall is not cut off, however far off the
// end is; who takes less, or nothing any more, is within that time, but for a look.
func TestAPeerStallsThatTakesLessThanAKiB(t *testing.T) {
	const stall, began, never = 8 * time.Second, 100 * time.Second, time.Hour
	for _, peer := range []struct {
		name  string
		taken func(after time.Duration) int64
		since time.Duration // when it has stalled since; never: it has not
	}{
		{"takes nothing", func(time.Duration) int64 { return 0 }, 0},
		{"took much before", func(time.Duration) int64 { return 1 << 40 }, 0},
		{"takes little", func(d time.Duration) int64 { return int64(d / (stall / 1000)) }, 0},
		{"is slow", func(d time.Duration) int64 { return int64(d / (stall / 1030)) }, never},
		{"takes much now and then", func(d time.Duration) int64 { return int64(d/(stall-stall/looks)) << 16 }, never},
		{"takes no more", func(d time.Duration) int64 { return int64(min(d, 20*time.Second) / (stall / 9000)) }, 20 * time.Second},
		{"took little last", func(d time.Duration) int64 { return int64(min(d, 20*time.Second)/(stall/9000) + d/(stall/1000)) }, 20 * time.Second},
	} {
		p := pace{stall: stall, since: began, before: peer.taken(0)}
		now, ended := began, false
		for looked := 0; !ended && now < began+never/2; looked++ {
			if next := p.next(now); next <= now || next > now+stall/looks {
				t.Fatalf("%s: a look at %v is followed by one at %v", peer.name, now, next)
			}
			now = p.next(now)
			ended = p.stalled(peer.taken(now-began), now)
		}
		earliest, latest := began+peer.since+stall, began+peer.since+stall+stall/looks
		if peer.since == 0 {
			latest = earliest // at once
		}
		switch {
		case peer.since == never && ended:
			t.Errorf("who %s is cut off after %v", peer.name, now-began)
		case peer.since != never && (!ended || now < earliest || now > latest):
			t.Errorf("who %s is cut off after %v (%v), want %v to %v", peer.name, now-began, ended, earliest-began, latest-began)
		}
	}
}

// A late look, as on a machine that has slept, counts what was taken meanwhile.
func TestALateLookAtAPeerIsNoStall(t *testing.T) {
	p := pace{stall: time.Second}
	if p.stalled(leastTaken, time.Minute) {
		t.Error("stalled, but has taken something")
	}
	if now := p.next(time.Minute); now <= time.Minute || p.stalled(leastTaken, now) {
		t.Errorf("stalled again at %v", now)
	}
}

// narrow makes connections that take little before they are read.
var narrow = &net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
	return rc.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 16<<10)
	})
}}

func mayStall(d time.Duration) option {
	return func(c *Config) { c.Listeners[0].Limits.BodyStall = d }
}

// It takes long for the socket to have room again, but the client has not stalled.
func TestDownloadByAClientThatReadsSlowlyIsWhole(t *testing.T) {
	const stall = 2 * time.Second
	s, ln := startFiles(t, time.Minute, mayStall(stall))
	control, data, backend := begin(t, s, ln, "DOWNLOAD", narrow)
	file := make([]byte, 8<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(file)
	go func() {
		_, _ = backend.Write(file)
		_ = backend.(*net.TCPConn).CloseWrite()
	}()
	var got bytes.Buffer
	for began := time.Now(); time.Since(began) < 3*stall; time.Sleep(50 * time.Millisecond) {
		if _, err := io.CopyN(&got, data, 4<<10); err != nil {
			t.Fatalf("after %v and %d bytes: %v", time.Since(began), got.Len(), err)
		}
	}
	if _, err := io.Copy(&got, data); err != nil || !bytes.Equal(got.Bytes(), file) {
		t.Errorf("%d bytes have come, not those of the file, or %v", got.Len(), err)
	}
	control.expect("+whole")
}

func TestDownloadByAClientThatReadsNoMoreIsCutShort(t *testing.T) {
	const stall = 500 * time.Millisecond
	s, ln := startFiles(t, time.Minute, mayStall(stall))
	control, data, backend := begin(t, s, ln, "DOWNLOAD", narrow)
	go func() { _, _ = backend.Write(make([]byte, 32<<20)) }()
	if _, err := io.CopyN(io.Discard, data, 1<<20); err != nil {
		t.Fatal(err)
	}
	control.expect("-client")
	if _, err := io.Copy(io.Discard, data); err == nil {
		t.Error("the client has seen a good end")
	}
}

// The end of the engine does not wait for a peer that is slow.
func TestASteadyWriteIsInterrupted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	e := &Engine{start: time.Now()}
	l := &link{lp: &loop{eng: e}, off: &detour{tc: nc.(*net.TCPConn), steady: true}}
	l.mayStall(time.Hour)
	done := make(chan error)
	go func() {
		_, err := l.put(make([]byte, 64<<20))
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatal("there was room for all, or", err)
	case <-time.After(50 * time.Millisecond):
	}
	e.reach(ending)
	l.interrupt(true)
	select {
	case err := <-done:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}
