package engine

import (
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tinyListener's connections take next to no output at a time.
type tinyListener struct{ net.Listener }

func (l tinyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		_ = c.(*net.TCPConn).SetWriteBuffer(1)
	}
	return c, err
}

// A flight that the socket refuses has its connection lent, with the handshake
// waiting for an answer. When it then ends on the goroutine, the handshake's last
// turn is still the loop's: taken elsewhere, it raced with the loop and could
// leave it without turns for ever.
func TestHandshakeThatEndsWhileLentHasItsLastTurnOnTheLoop(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Loops = 1
		c.Listeners[0].Listener = tinyListener{c.Listeners[0].Listener}
		c.Listeners[0].Limits = Limits{Handshake: 2 * time.Second, Linger: 100 * time.Millisecond}
	})
	whole := string(hello())
	var all sync.WaitGroup
	work := make(chan int)
	for range 4 {
		all.Go(func() {
			for unread := range work {
				resetInFlight(t, s.addr, strings.Repeat("ECHO "+strings.Repeat("x", 120)+"\r\n", unread), whole)
			}
		})
	}
	for i := range 240 {
		work <- i % 60
	}
	close(work)
	all.Wait()
	eventually(t, "the end of all", func() bool { return s.eng.Stats().Open == 0 })
	c := s.dialTLS()
	c.send("ECHO alive\r\n")
	c.expect("+alive")
}

// resetInFlight leaves replies unread, begins a handshake behind them, and resets.
func resetInFlight(t *testing.T, addr, commands, hello string) {
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 1)
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 256)
		})
	}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
	_ = nc.(*net.TCPConn).SetLinger(0)
	for _, p := range []string{commands + "ECHO 1\r\n", "STARTTLS\r\n", hello} {
		_, _ = io.WriteString(nc, p)
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
}
