package engine

import (
	"bufio"
	"io"
	"net"
	"testing"
	"time"
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
