package engine

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// abort closes a client's socket with a reset.
func (c *client) abort() {
	if u, ok := c.Conn.(interface{ NetConn() net.Conn }); ok {
		c.Conn = u.NetConn()
	}
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	_ = c.Conn.Close()
}

// A client that sends much and reads late: replies stop fitting into the socket,
// so the connection is lent until they have drained. Nothing is lost or
// reordered, and everybody else is served meanwhile.
func TestSlowReaderForcesALendAndLosesNothing(t *testing.T) {
	s := start(t)
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		const replies, size = 300, 50_000
		go func() {
			for i := range replies {
				_, _ = fmt.Fprintf(c.Conn, "BIG %d\r\nECHO %d\r\n", size, i)
			}
		}()
		eventually(t, "a lend", func() bool { return s.eng.Stats().Lent == 1 })
		other := s.dial()
		other.send("ECHO other\r\n")
		other.expect("+other")
		big := "+" + strings.Repeat("x", size-1)
		for i := range replies {
			c.expect(big, fmt.Sprintf("+%d", i))
		}
		eventually(t, "the give-back", func() bool { return s.eng.Stats().Lent == 0 })
		c.send("ECHO back on the loop\r\n")
		c.expect("+back on the loop")
	}
}

func TestPeerThatNeverReadsIsClosedAtTheDeadlineAndCostsLittle(t *testing.T) {
	s := start(t, withLimits(Limits{Command: time.Second, Linger: 200 * time.Millisecond}))
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		go func() {
			flood := strings.Repeat("BIG 1000\r\n", 100)
			for {
				if _, err := io.WriteString(c.Conn, flood); err != nil {
					return
				}
			}
		}()
	}
	eventually(t, "both closed", func() bool {
		other := s.dial() // is served all the while
		other.send("ECHO x\r\nQUIT\r\n")
		other.expect("+x", "+bye")
		other.Close()
		st := s.eng.Stats()
		return st.EndedBy(ReasonOutputTimeout) == 2
	})
}

// One session changes hands 10,000 times at random while every byte of both
// directions is checked.
func TestSessionLentAndGivenBackAtRandomKeepsEveryByte(t *testing.T) {
	rounds := 10_000
	if testing.Short() {
		rounds = 500
	}
	s := start(t)
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		r := rand.New(rand.NewPCG(7, uint64(rounds)))
		expected := make(chan string, 64)
		go func() {
			defer close(expected)
			var batch strings.Builder
			for i := range rounds {
				switch r.IntN(4) {
				case 0, 1:
					batch.WriteString("LEND\r\n")
					expected <- "+back"
				case 2:
					body := strings.Repeat(string(rune('a'+i%26)), 1+r.IntN(3000))
					fmt.Fprintf(&batch, "SINK %d\r\n%s", len(body), body)
					expected <- fmt.Sprintf("+%08x", crc32.ChecksumIEEE([]byte(body)))
				default:
					fmt.Fprintf(&batch, "ECHO %d\r\n", i)
					expected <- fmt.Sprintf("+%d", i)
				}
				if r.IntN(3) == 0 { // cut anywhere
					b := batch.String()
					cut := r.IntN(len(b) + 1)
					_, _ = io.WriteString(c.Conn, b[:cut])
					batch.Reset()
					batch.WriteString(b[cut:])
				}
			}
			_, _ = io.WriteString(c.Conn, batch.String())
		}()
		_ = c.SetDeadline(time.Now().Add(3 * time.Minute))
		for want := range expected {
			c.expect(want)
		}
	}
}

// A reset may come at any moment of lending and giving back. Every connection
// ends once, and no descriptor stays behind.
func TestResetAtEachStepOfLendingLeavesNoDescriptor(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 200
	}
	s := start(t)
	s.dial().abort()
	eventually(t, "the first connection gone", func() bool { return s.eng.Stats().Open == 0 })
	before := descriptors()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(w), 3))
			for range rounds / 4 {
				nc, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				c := &client{t: t, Conn: nc}
				_, _ = io.WriteString(nc, strings.Repeat("LEND\r\nSINK 3\r\nabcECHO x\r\n", 1+r.IntN(5)))
				time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
				c.abort()
			}
		}()
	}
	wg.Wait()
	eventually(t, "all connections gone", func() bool { return s.eng.Stats().Open == 0 })
	eventually(t, "descriptors back to where they were", func() bool { return descriptors() <= before })
}

// A reset between two replies of one batch frees a descriptor number that the
// next client gets. What was meant for the one must never reach the other.
func TestResetBetweenRepliesOfABatchReachesNobodyElse(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	s := start(t, func(c *Config) { c.Listeners[0].Limits.Output = 64 }) // many writes a batch
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Add(1)
		go func() { // innocent clients, coming and going, checking every byte
			defer wg.Done()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				nc, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
				text := fmt.Sprintf("innocent %d.%d", i, n)
				_, _ = io.WriteString(nc, "ECHO "+text+"\r\nQUIT\r\n")
				got, err := io.ReadAll(nc)
				if want := "+hello\r\n+" + text + "\r\n+bye\r\n"; string(got) != want || err != nil {
					t.Errorf("got %q, %v; want %q", got, err, want)
				}
				nc.Close()
			}
		}()
	}
	for i := range rounds {
		var c *client
		if i%10 == 0 {
			c = s.dialTLS()
		} else {
			c = s.dial()
		}
		_, _ = io.WriteString(c.Conn, strings.Repeat("ECHO for the guilty only\r\n", 200))
		c.abort()
	}
	close(stop)
	wg.Wait()
}

func TestStalledBodiesHoldNoBufferAndEndAtTheDeadline(t *testing.T) {
	s := start(t, withLimits(Limits{BodyStall: 1500 * time.Millisecond, Linger: 100 * time.Millisecond}))
	const n = 200
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dial()
		clients[i].send("SINK 1000\r\nabc")
	}
	eventually(t, "all lent", func() bool { return s.eng.Stats().Lent == n })
	for _, c := range clients {
		c.expect("-timed out")
		c.ended()
	}
	eventually(t, "all blamed on the body's deadline", func() bool {
		st := s.eng.Stats()
		return st.EndedBy(ReasonBodyTimeout) == n
	})
}

// attacker is a client under TLS 1.3 that can send what crypto/tls would not.
func (s *server) attacker() (*client, *tlstest.Sealer) {
	s.t.Helper()
	c := s.dial()
	c.send("STARTTLS\r\n")
	c.expect("+go")
	var keys bytes.Buffer
	cfg := tlstest.ClientConfig()
	cfg.MinVersion = tls.VersionTLS13
	tlstest.SealerConfig(cfg, &keys)
	c.handshake(cfg)
	return c, tlstest.NewSealer(s.t, c.Conn.(*tls.Conn).ConnectionState(), keys.String(), nil)
}

// smallBuffers makes writes block soon.
type smallBuffers struct{ net.Listener }

func (l smallBuffers) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		_ = nc.(*net.TCPConn).SetWriteBuffer(4 << 10)
	}
	return nc, err
}

// Reading writes too, when the peer asks for KeyUpdates and does not read them.
// That must not hold a connection beyond its deadlines, on the loop or lent.
func TestKeyUpdateFloodThatIsNeverReadEndsAtTheDeadline(t *testing.T) {
	for name, before := range map[string]string{"on the loop": "ECHO x\r\n", "lent": "SINK 100000000\r\nabc"} {
		t.Run(name, func(t *testing.T) {
			s := start(t, func(c *Config) {
				c.Listeners[0].Limits = Limits{Command: time.Second, BodyStall: time.Second, Linger: 100 * time.Millisecond}
				c.Listeners[0].Listener = smallBuffers{c.Listeners[0].Listener}
			})
			c, sealer := s.attacker()
			raw := c.Conn.(*tls.Conn).NetConn()
			_ = raw.(*net.TCPConn).SetReadBuffer(16 << 10)
			_, _ = raw.Write(sealer.Seal(tlstest.TypeApplication, []byte(before)))
			done := make(chan struct{})
			go func() {
				defer close(done)
				for err := error(nil); err == nil; {
					var flood []byte
					for range 16 {
						flood = append(flood, sealer.KeyUpdate()...)
					}
					_, err = raw.Write(append(flood, sealer.Seal(tlstest.TypeApplication, []byte("x"))...))
				}
			}()
			defer func() {
				raw.Close()
				<-done
			}()
			eventually(t, "the end", func() bool { return s.eng.Stats().Open == 0 })
		})
	}
}

func TestStallInsideARecordEndsAtTheDeadline(t *testing.T) {
	s := start(t, withLimits(Limits{Command: 2 * time.Second, Linger: 100 * time.Millisecond}))
	const n = 1000
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dialTLS()
		raw := clients[i].Conn.(interface{ NetConn() net.Conn }).NetConn()
		_, _ = io.WriteString(raw, "\x17\x03\x03\x40\x00"+"0123456789")
	}
	for _, c := range clients {
		c.expect("-timed out")
		c.ended()
	}
}
