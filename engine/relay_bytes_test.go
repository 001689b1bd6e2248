package engine

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relayTime is how long bytes are carried across in the tests below; an environment
// variable makes it longer.
func relayTime(t *testing.T) time.Duration {
	if v := os.Getenv("STARTTLSD_RELAY_TIME"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if testing.Short() {
		return time.Second
	}
	return 4 * time.Second
}

// flow writes n bytes of a stream that seed makes, in pieces of all sizes, with
// pauses of all lengths around the moment after which a pair returns to its loop.
func flow(w io.Writer, seed uint64, n int) (crc uint32, err error) {
	rnd := rand.New(rand.NewPCG(seed, 1))
	piece := make([]byte, 256<<10)
	for n > 0 {
		size := 1 + rnd.IntN([]int{10, 1000, 20_000, len(piece)}[rnd.IntN(4)])
		p := piece[:min(n, size)]
		for i := 0; i < len(p); i += 8 {
			p[i] = byte(rnd.Uint32())
		}
		if _, err := w.Write(p); err != nil {
			return 0, err
		}
		crc = crc32.Update(crc, crc32.IEEETable, p)
		n -= len(p)
		pause(rnd)
	}
	return crc, nil
}

// drink is flow's reader, which is slow by turns.
func drink(r io.Reader, seed uint64, n int) (crc uint32, err error) {
	rnd := rand.New(rand.NewPCG(seed, 2))
	piece := make([]byte, 128<<10)
	for n > 0 {
		m, err := r.Read(piece[:min(n, 1+rnd.IntN(len(piece)))])
		crc = crc32.Update(crc, crc32.IEEETable, piece[:m])
		if n -= m; err != nil && n > 0 {
			return 0, err
		}
		if rnd.IntN(50) == 0 {
			pause(rnd)
		}
	}
	return crc, nil
}

func pause(rnd *rand.Rand) {
	switch rnd.IntN(12) {
	case 0:
		time.Sleep(time.Duration(rnd.IntN(int(2 * moment))))
	case 1:
		time.Sleep(moment + time.Duration(rnd.IntN(int(moment/4))))
	}
}

// both runs flow and drink at once on one stream.
func both(nc io.ReadWriter, out, in uint64, nOut, nIn int) (sent, got uint32, err error) {
	var err1, err2 error
	var wg sync.WaitGroup
	wg.Go(func() { sent, err1 = flow(nc, out, nOut) })
	wg.Go(func() { got, err2 = drink(nc, in, nIn) })
	wg.Wait()
	return sent, got, errors.Join(err1, err2)
}

// Pairs that change hands all the time, in both directions at once, lose, double and
// reorder nothing.
func TestRelayKeepsEveryByte(t *testing.T) {
	end := time.Now().Add(relayTime(t))
	var total atomic.Int64
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		t.Parallel()
		s := start(t, relayTo(backend(t, secureBackend, func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			var a, b uint64
			var up, down int
			line, _ := r.ReadString('\n')
			if _, err := fmt.Sscanf(line, "OPAQUE %d %d %d %d", &a, &b, &up, &down); err != nil {
				return
			}
			_, _ = io.WriteString(nc, "+OPAQUE\r\n")
			sent, got, err := both(struct {
				io.Reader
				io.Writer
			}{r, nc}, b, a, down, up)
			_, _ = fmt.Fprintf(nc, "%08x %08x %v\r\n", got, sent, err)
		})))
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				for time.Now().Before(end) || total.Load() == 0 {
					c := dial(s)
					_ = c.SetDeadline(time.Now().Add(time.Minute))
					a, b := rand.Uint64(), rand.Uint64()
					up, down := rand.IntN(2<<20), rand.IntN(2<<20)
					c.send(fmt.Sprintf("OPAQUE %d %d %d %d\r\n", a, b, up, down))
					c.expect("+OPAQUE")
					sent, got, err := both(struct {
						io.Reader
						io.Writer
					}{c.r, c.Conn}, a, b, up, down)
					if err != nil {
						t.Error(err)
						return
					}
					c.expect(fmt.Sprintf("%08x %08x <nil>", sent, got))
					c.ended()
					c.Close()
					total.Add(int64(up + down))
				}
			})
		}
		wg.Wait()
		eventually(t, "the end of all", func() bool { return s.eng.Stats().Relayed == 0 })
	})
	t.Cleanup(func() { t.Logf("%d MiB carried across", total.Load()>>20) })
}

// Resets and ends of either side at any moment: everything that belongs to the pair
// is gone afterwards, and nobody else suffers.
func TestRelayChaos(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		end := time.Now().Add(relayTime(t) / 4)
		s := start(t, relayTo(backend(t, secureBackend, func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			line, _ := r.ReadString('\n')
			if line == "" {
				return
			}
			_, _ = io.WriteString(nc, "+OPAQUE\r\n")
			// A bare Writer: by splice it would leave pipes in a pool, until a collection.
			go func() { _, _ = io.Copy(struct{ io.Writer }{nc}, r) }()
			time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond)
			u, ok := nc.(interface{ NetConn() net.Conn })
			if raw := nc; rand.IntN(2) == 0 {
				if ok {
					raw = u.NetConn()
				}
				_ = raw.(*net.TCPConn).SetLinger(0)
			}
		})))
		before := descriptors()
		witness := s.dialTLS()
		_ = witness.SetDeadline(time.Time{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := 0; i < 3 || time.Now().Before(end); i++ {
					c := dial(s)
					c.send("OPAQUE\r\n")
					go func(nc net.Conn) {
						p := make([]byte, 1+rand.IntN(64<<10))
						for {
							if _, err := nc.Write(p); err != nil {
								return
							}
						}
					}(c.Conn)
					_, _ = io.CopyN(io.Discard, c.r, int64(rand.IntN(1<<20)))
					switch time.Sleep(time.Duration(rand.IntN(30)) * time.Millisecond); rand.IntN(3) {
					case 0:
						c.abort()
					case 1:
						_ = c.SetDeadline(time.Now().Add(time.Second)) // under TLS it waits for the other Write
						if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
							_ = cw.CloseWrite()
						}
						_, _ = io.CopyN(io.Discard, c.r, 1<<20)
						_ = c.Conn.Close()
					default:
						_ = c.Conn.Close()
					}
				}
			})
		}
		wg.Wait()
		eventually(t, "the end of all", func() bool { st := s.eng.Stats(); return st.Relayed == 0 && st.Open == 1 })
		witness.send("QUIT\r\n")
		witness.expect("+bye")
		witness.Close()
		eventually(t, "the descriptors given back", func() bool { return descriptors() <= before+1 })
	})
}

// A client that reads slowly slows its backend down, and costs no memory.
func TestSlowReaderSlowsTheBackendDown(t *testing.T) {
	const size = 64 << 20
	var written atomic.Int64
	s := start(t, relayTo(backend(t, false, func(nc net.Conn, r *bufio.Reader) {
		_, _ = r.ReadString('\n') // FROM
		if line, _ := r.ReadString('\n'); line != "OPAQUE\r\n" {
			return
		}
		_, _ = io.WriteString(nc, "+OPAQUE\r\n")
		for p := make([]byte, 64<<10); written.Load() < size; written.Add(int64(len(p))) {
			if _, err := nc.Write(p); err != nil {
				return
			}
		}
	})))
	c := s.dialTLS()
	c.send("OPAQUE\r\n")
	c.expect("+OPAQUE")
	eventually(t, "the pair lent", func() bool { return s.eng.Stats().Lent == 1 })
	for range 20 {
		if _, err := io.CopyN(io.Discard, c.r, 1000); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := written.Load(); n > 32<<20 {
		t.Errorf("the backend could write %d MiB that nobody has read", n>>20)
	}
	n, err := io.Copy(io.Discard, c.r)
	if n += 20 * 1000; n < size || err != nil {
		t.Errorf("got %d of %d bytes: %v", n, size, err)
	}
}
