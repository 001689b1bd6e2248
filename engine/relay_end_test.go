package engine

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/codec"
)

// A client that has ended its direction gets what it is owed, and then the end: no
// pair waits for anything more, and our own words do not follow the last reply.
func TestClientThatHasSaidAllIsDoneWithItsLastReply(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		for name, atEnd := range map[string]func(*bufio.Reader){
			"backend waits": nil,
			"backend ends":  func(r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) },
		} {
			t.Run(name, func(t *testing.T) {
				over := make(chan struct{})
				defer close(over)
				if atEnd == nil {
					atEnd = func(*bufio.Reader) { <-over }
				}
				s := start(t, relayTo(backend(t, secureBackend, func(nc net.Conn, r *bufio.Reader) {
					_, _ = r.ReadString('\n') // FROM
					for range 2 {
						line, _ := r.ReadString('\n')
						time.Sleep(50 * time.Millisecond)
						_, _ = io.WriteString(nc, "+"+line)
					}
					atEnd(r)
				})))
				c := dial(s)
				c.send("one\r\ntwo\r\n")
				closeWrite(t, c.Conn)
				began := time.Now()
				c.expect("+one", "+two")
				c.ended()
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the end came after %v", took)
				}
			})
		}
	})
}

// What has come from a backend is the client's, also when the backend is reset while
// the pair is on its way from the loop.
func TestBackendResetWhileThePairLeavesItsLoopLosesNothing(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		reset := make(chan struct{})
		b := backend(t, secureBackend, func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			_, _ = r.ReadString('\n')
			_, _ = io.WriteString(nc, "+x\r\n")
			<-reset
			if u, ok := nc.(interface{ NetConn() net.Conn }); ok {
				nc = u.NetConn()
			}
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
		})
		s := start(t, relayTo(b))
		c := dial(s)
		c.send("x\r\n")
		c.expect("+x")
		for range swapping { // nothing changes hands
			s.eng.swap <- struct{}{}
		}
		s.onLoop(func(c *conn) gnet.Action {
			c.link.lp.out = append(c.link.lp.out, "the socket was full\r\n"...)
			c.flush()
			c.link.detour().pending = codec.GetBuffer()
			c.link.push(false)
			c.move = lend
			return c.settle()
		})
		close(reset)
		eventually(t, "the reset", func() bool { return b.open.Load() == 0 })
		time.Sleep(20 * time.Millisecond)
		for range swapping {
			<-s.eng.swap
		}
		c.expect("the socket was full", "-no backend")
		c.ended()
		c.Close()
		s.saw(ReasonBackendLost, 1)
	})
}
