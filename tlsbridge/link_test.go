package tlsbridge

import (
	"crypto/tls"
	"errors"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"starttlsd/tlsbridge/tlstest"
)

// secure returns a rig whose handshake is done, and its client.
func secure(t testing.TB, version uint16) (*rig, *tls.Conn) {
	t.Helper()
	slots := NewSlots(SlotLimits{})
	r := newRig(t, tlstest.ServerConfig(), slots, Options{})
	client := tls.Client(r.client, clientConfig(version))
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	if err := r.pump(r.over); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.server.Close() })
	return r, client
}

func TestReadIsCutAtRecordBounds(t *testing.T) {
	r, client := secure(t, tls.VersionTLS13)
	probe := &probeLink{Link: &loopLink{end: r.server}}
	r.conn.SetLink(probe)
	for range 3 {
		if err := writeAll(client, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := io.ReadFull(untilBlocked{r.conn}, make([]byte, 3000)); n != 3000 {
		t.Fatal(n, err)
	}
	for i, n := range probe.sizes {
		if want := []int{recordHeader, 1000 + 1 + 16}[i%2]; n != want {
			t.Errorf("read %d got %d bytes, want %d", i, n, want)
		}
	}
}

type untilBlocked struct{ c *Conn }

func (u untilBlocked) Read(p []byte) (int, error) { return u.c.Read(p) }

// probeLink records what reads return.
type probeLink struct {
	Link
	sizes []int
}

func (l *probeLink) Read(p []byte) (int, error) {
	n, err := l.Link.Read(p)
	if n > 0 {
		l.sizes = append(l.sizes, n)
	}
	return n, err
}

// scripted is a Link whose results are set by the test.
type scripted struct {
	read  func(p []byte) (int, error)
	write func(p []byte) (int, error)
}

func (l scripted) Read(p []byte) (int, error)  { return l.read(p) }
func (l scripted) Write(p []byte) (int, error) { return l.write(p) }

func TestEmptyReadOfTheLinkDoesNotSpin(t *testing.T) {
	r, _ := secure(t, tls.VersionTLS13)
	r.conn.SetLink(scripted{read: func([]byte) (int, error) { return 0, nil }})
	if n, err := r.conn.Read(make([]byte, 1)); n != 0 || err != ErrWouldBlock {
		t.Errorf("read %d, %v", n, err)
	}
}

func TestDataThatComesWithTheEndIsReadFirst(t *testing.T) {
	for _, end := range []error{io.EOF, ErrWouldBlock} {
		r, client := secure(t, tls.VersionTLS13)
		if err := writeAll(client, []byte("last")); err != nil {
			t.Fatal(err)
		}
		r.conn.SetLink(scripted{read: func(p []byte) (int, error) {
			n, _ := r.server.rx.read(p, false)
			if r.server.rx.empty() {
				return n, end
			}
			return n, nil
		}})
		buf := make([]byte, 10)
		if n, err := r.conn.Read(buf); string(buf[:n]) != "last" || err != nil {
			t.Errorf("%v: read %q, %v", end, buf[:n], err)
		}
		want := end
		if end == io.EOF {
			want = io.ErrUnexpectedEOF
		}
		if n, err := r.conn.Read(buf); n != 0 || err != want {
			t.Errorf("%v: read %d, %v", end, n, err)
		}
	}
}

// A TLS 1.2 alert that is half there makes crypto/tls return data together with the link's error.
func TestDataBeforeAHalfArrivedAlertIsReadFirst(t *testing.T) {
	l, end := startLoop(t, tlstest.ServerConfig())
	client, s := attacker(t, end, tls.VersionTLS12)
	alert := s.Seal(tlstest.TypeApplication, []byte("x"))
	closing := s.Seal(tlstest.TypeAlert, []byte{1, 0})
	if err := writeAll(end, append(alert, closing[:3]...)); err != nil {
		t.Fatal(err)
	}
	expect(t, client, "x")
	if err := writeAll(end, closing[3:]); err != nil {
		t.Fatal(err)
	}
	if err := l.wait(); err != io.EOF {
		t.Error(err)
	}
}

func TestWriteErrorsOfTheLinkAreFinal(t *testing.T) {
	for name, write := range map[string]func(p []byte) (int, error){
		"would block": func([]byte) (int, error) { return 0, ErrWouldBlock },
		"short":       func(p []byte) (int, error) { return len(p) - 1, nil },
		"failed":      func([]byte) (int, error) { return 0, ErrOverflow },
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := secure(t, tls.VersionTLS13)
			r.conn.SetLink(scripted{write: write})
			if n, err := r.conn.Write([]byte("x")); err == nil {
				t.Fatalf("wrote %d", n)
			}
			r.conn.SetLink(scripted{write: func(p []byte) (int, error) {
				t.Errorf("% x was written behind a hole", p)
				return len(p), nil
			}})
			if n, err := r.conn.Write([]byte("x")); err == nil {
				t.Errorf("wrote %d", n)
			}
			if err := r.conn.CloseNotify(); err == nil {
				t.Error("close_notify after a failed write")
			}
		})
	}
}

// deadlineLink notes the deadlines that it is given.
type deadlineLink struct {
	*wireEnd
	set []time.Duration
}

func (l *deadlineLink) SetWriteDeadline(t time.Time) error {
	l.set = append(l.set, time.Until(t))
	return nil
}

func TestCloseNotifyIsBoundedAndDropsNothing(t *testing.T) {
	r, client := secure(t, tls.VersionTLS13)
	lent := &deadlineLink{wireEnd: r.server}
	r.conn.SetLink(lent)
	if err := writeAll(r.conn, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.conn.CloseNotify(); err != nil {
			t.Error(err)
		}
	}
	if len(lent.set) != 1 || lent.set[0] <= 0 {
		t.Errorf("write deadlines %v, want a single one in the future", lent.set)
	}
	if got, err := io.ReadAll(client); string(got) != "last words" || err != nil {
		t.Errorf("client read %q, %v", got, err)
	}
	if n, err := r.conn.Write([]byte("x")); err == nil {
		t.Errorf("wrote %d behind close_notify", n)
	}
}

func TestCallbacksSeeTheAddresses(t *testing.T) {
	seen := make(chan net.Addr, 2)
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		seen <- hello.Conn.LocalAddr()
		seen <- hello.Conn.RemoteAddr()
		return nil, nil
	}
	slots := NewSlots(SlotLimits{})
	r := newRig(t, cfg, slots, Options{})
	r.conn.link = addressed{&loopLink{end: r.server}}
	r.send(clientHello13())
	if a, b := (<-seen).String(), (<-seen).String(); a != "192.0.2.1:25" || b != "192.0.2.2:99" {
		t.Errorf("addresses %s, %s", a, b)
	}
	r.conn.Abort(nil)
	r.fails(ReasonClosed)
}

type addressed struct{ Link }

func (addressed) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 25} }
func (addressed) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 99} }

// The connection is lent and given back at random, mostly in the middle of a
// record, while checksummed data flows both ways.
func TestSwitchingLinksKeepsBothStreams(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		const total, wantSwitches = 2 << 20, 2000
		r, client := secure(t, version)
		rng := rand.New(rand.NewPCG(1, uint64(version)))
		table := crc64.MakeTable(crc64.ISO)
		var sent, received, back, ours uint64
		var ends sync.WaitGroup
		ends.Go(func() { // the client sends
			src, rng := rand.NewChaCha8([32]byte{1}), rand.New(rand.NewPCG(2, 2))
			for left := total; left > 0; {
				p := make([]byte, min(left, 1+rng.IntN(2000)))
				_, _ = src.Read(p)
				sent = crc64.Update(sent, table, p)
				if err := writeAll(client, p); err != nil {
					t.Error(err)
					return
				}
				left -= len(p)
			}
			_ = client.CloseWrite()
		})
		ends.Go(func() { // and reads
			p := make([]byte, 10_000)
			for {
				n, err := client.Read(p)
				back = crc64.Update(back, table, p[:n])
				if err != nil {
					if err != io.EOF {
						t.Error(err)
					}
					return
				}
			}
		})

		loopSide := &loopLink{end: r.server, max: func() int { return 1 + rng.IntN(400) }}
		p := make([]byte, 1000)
		serve := func() error {
			n, err := r.conn.Read(p[:1+rng.IntN(1000)])
			received = crc64.Update(received, table, p[:n])
			if n > 0 {
				ours = crc64.Update(ours, table, p[:n])
				if werr := writeAll(r.conn, p[:n]); werr != nil {
					t.Error(werr)
				}
			}
			return err
		}
		switches := 0
		var err error
		for err == nil {
			r.conn.SetLink(loopSide)
			for range rng.IntN(4) {
				if err = serve(); err != nil {
					break
				}
			}
			if err == ErrWouldBlock {
				err = nil
			} else if err != nil {
				break
			}
			switches++
			r.conn.SetLink(&shortReads{wireEnd: r.server, max: loopSide.max})
			// A read deadline ends the lending, also in the middle of a record.
			_ = r.server.SetReadDeadline(time.Now().Add(time.Duration(rng.IntN(200)) * time.Microsecond))
			if err = serve(); errors.Is(err, os.ErrDeadlineExceeded) {
				err = nil
			}
			_ = r.server.SetReadDeadline(time.Time{})
		}
		if err != io.EOF {
			t.Error(err)
		}
		if err := r.conn.CloseNotify(); err != nil {
			t.Error(err)
		}
		ends.Wait()
		if sent != received || ours != back {
			t.Errorf("checksums %x %x, %x %x", sent, received, ours, back)
		}
		if switches < wantSwitches {
			t.Errorf("only %d switches", switches)
		}
		t.Log(switches, "switches")
	})
}

// shortReads is a blocking link that returns little at a time.
type shortReads struct {
	*wireEnd
	max func() int
}

func (s *shortReads) Read(p []byte) (int, error) { return s.wireEnd.Read(p[:min(len(p), s.max())]) }

// lentConn is a Conn over a blocking link as a net.Conn. A write deadline is looked
// at before the write only: one that passes within a record ends a TLS stream.
type lentConn struct {
	io.ReadWriter
	*wireEnd
	reads    sync.Mutex
	mu       sync.Mutex
	deadline time.Time
	bye      func() error
}

func (c *lentConn) Read(p []byte) (int, error) {
	c.reads.Lock()
	defer c.reads.Unlock()
	return c.ReadWriter.Read(p)
}

func (c *lentConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	late := !c.deadline.IsZero() && time.Until(c.deadline) <= 0
	c.mu.Unlock()
	if late {
		return 0, os.ErrDeadlineExceeded
	}
	return c.ReadWriter.Write(p)
}

func (c *lentConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *lentConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *lentConn) Close() error {
	_ = c.bye() // the peer may be gone
	return c.wireEnd.Close()
}

func TestLentConnIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		r, client := secure(t, tls.VersionTLS13)
		r.conn.SetLink(r.server)
		ours := &lentConn{ReadWriter: r.conn, wireEnd: r.server, bye: r.conn.CloseNotify}
		theirs := &lentConn{ReadWriter: client, wireEnd: r.client, bye: client.CloseWrite}
		return ours, theirs, func() { _, _ = ours.wireEnd.Close(), theirs.wireEnd.Close() }, nil
	})
}
