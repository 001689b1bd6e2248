package engine

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/tlsbridge/tlstest"
)

// tap is a socket under TLS 1.3 that keeps what was read from it: crypto/tls does not
// tell an end with close_notify from one without.
type tap struct {
	*net.TCPConn
	got []byte
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.TCPConn.Read(p)
	t.got = append(t.got, p[:n]...)
	return n, err
}

// notified reports whether the last record was an alert, by its length.
func (t *tap) notified() bool {
	last := 0
	for b := t.got; len(b) >= 5; {
		last = int(binary.BigEndian.Uint16(b[3:]))
		b = b[min(len(b), 5+last):]
	}
	return last == 2+1+16
}

// tappedBackend gives the connections of a backend under TLS, opaque from their second line on.
func tappedBackend(t *testing.T) (*behind, <-chan *tap) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	taps := make(chan *tap)
	go func() {
		defer close(taps)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			taps <- &tap{TCPConn: nc.(*net.TCPConn)}
		}
	}()
	return &behind{addr: ln.Addr().String(), tls: true}, taps
}

// No close_notify follows what was cut short on the other side, on the loop or lent:
// the peer would take it for the whole.
func TestWhatWasCutShortIsNotPassedOnAsWhole(t *testing.T) {
	ends := map[string]func(*tls.Conn, *tap){
		"close_notify": func(nc *tls.Conn, _ *tap) { _ = nc.CloseWrite() },
		"FIN":          func(_ *tls.Conn, raw *tap) { _ = raw.CloseWrite() },
		"reset": func(_ *tls.Conn, raw *tap) {
			_ = raw.SetLinger(0)
			_ = raw.Close()
		},
	}
	for name, end := range ends {
		for _, busy := range []bool{false, true} {
			for _, ender := range []string{"client", "backend"} {
				t.Run(fmt.Sprintf("%s of the %s/busy=%v", name, ender, busy), func(t *testing.T) {
					b, taps := tappedBackend(t)
					s := start(t, relayTo(b), withLimits(Limits{Linger: 200 * time.Millisecond}))
					c := s.dial()
					c.send("STARTTLS\r\n")
					c.expect("+go")
					front := &tap{TCPConn: c.Conn.(*net.TCPConn)}
					c.Conn = front
					c.handshake(tlstest.ClientConfig())
					c.send("OPAQUE\r\n")
					behind := <-taps
					defer behind.Close()
					u := tls.Server(behind, tlstest.ServerConfig())
					_, _ = io.WriteString(u, "+backend\r\n")
					r := bufio.NewReader(u)
					_, _ = r.ReadString('\n') // FROM
					_, _ = r.ReadString('\n')
					_, _ = io.WriteString(u, "+OPAQUE\r\n")
					c.expect("+OPAQUE")
					s.onLoop(func(c *conn) gnet.Action {
						if !busy {
							return gnet.None
						}
						c.move = lend
						return c.settle()
					})
					from, socket, to, other := c.Conn.(*tls.Conn), front, io.Reader(r), behind
					if ender == "backend" {
						from, socket, to, other = u, behind, c.r, front
					}
					_, _ = io.WriteString(from, "half of")
					end(from, socket)
					_, _ = io.Copy(io.Discard, to)
					if got, want := other.notified(), name == "close_notify"; got != want {
						t.Errorf("close_notify on the other side: %v, want %v", got, want)
					}
				})
			}
		}
	}
}
