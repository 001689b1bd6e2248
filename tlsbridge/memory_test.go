package tlsbridge

import (
	"crypto/tls"
	"io"
	"runtime"
	"testing"
)

// idleHeap returns the heap bytes a secured, idle Conn holds after the echo of
// one message of that size.
func idleHeap(t *testing.T, version uint16, size int) int {
	const n = 100
	conns := make([]*Conn, n)
	fill := func(t *testing.T) {
		for i := range conns {
			r, client := secure(t, version)
			message := make([]byte, size)
			for range 3 {
				if err := writeAll(client, message); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(r.conn, message); err != nil {
					t.Fatal(err)
				}
				if _, err := r.conn.Read(make([]byte, 1)); err != ErrWouldBlock {
					t.Fatal(err)
				}
				if err := writeAll(r.conn, message); err != nil {
					t.Fatal(err)
				}
			}
			r.conn.SetLink(nil)
			conns[i] = r.conn
		}
	}
	heap := func() uint64 {
		for range 3 { // pools let go after two
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	t.Run("fill", fill) // its clients and wires end with it
	used := int(heap()-before) / n
	runtime.KeepAlive(conns)
	return used
}

func TestIdleConnIsSmall(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		short, long := idleHeap(t, version, 40), idleHeap(t, version, 16<<10)
		t.Logf("after short commands %d bytes, after 16 KiB records %d", short, long)
		if short > 9<<10 {
			t.Errorf("%d bytes after short commands", short)
		}
		// crypto/tls keeps one buffer of 18,432 bytes; 40,960 without the cut at record bounds.
		if long > 28<<10 {
			t.Errorf("%d bytes after 16 KiB records", long)
		}
	})
}

var raceDetector bool

func TestIdleReadDoesNotAllocate(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		r, _ := secure(t, version)
		p := make([]byte, 1024)
		if n := testing.AllocsPerRun(100, func() { _, _ = r.conn.Read(p) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}

func TestCommandKeepsToItsAllocations(t *testing.T) {
	if raceDetector {
		t.Skip("allocations differ under the race detector")
	}
	r, client := secure(t, tls.VersionTLS13)
	p, command := make([]byte, 1024), []byte("NOOP\r\n")
	whole := testing.AllocsPerRun(100, func() {
		_ = writeAll(client, command)
		_, _ = r.conn.Read(p)
		_, _ = r.conn.Read(p)
	})
	sending := testing.AllocsPerRun(100, func() { _ = writeAll(client, command) })
	// crypto/tls makes one reader for the header and one for the body.
	if n := whole - sending; n > 2 {
		t.Errorf("%v allocations to read a command", n)
	}
}
