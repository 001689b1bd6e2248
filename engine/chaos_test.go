package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// cutter ends the connection when the client has written left bytes.
type cutter struct {
	*net.TCPConn
	left  int
	reset bool // with RST, else with FIN
}

var errCut = errors.New("cut")

func (c *cutter) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left >= 0 {
		return c.TCPConn.Write(p)
	}
	_, _ = c.TCPConn.Write(p[:len(p)+c.left])
	if c.reset {
		_ = c.TCPConn.SetLinger(0)
		_ = c.TCPConn.Close()
	} else {
		_ = c.TCPConn.CloseWrite()
	}
	return 0, errCut
}

// whole is a session with everything in it: plaintext, STARTTLS, handshake, a
// body on a goroutine, and the end.
func whole(nc net.Conn) error {
	expect := func(r io.Reader, want string) error {
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
			return errors.Join(errors.New("wrong answer"), err)
		}
		return nil
	}
	if err := expect(nc, "+hello\r\n"); err != nil {
		return err
	}
	if _, err := io.WriteString(nc, "ECHO x\r\nSTARTTLS\r\n"); err != nil {
		return err
	}
	if err := expect(nc, "+x\r\n+go\r\n"); err != nil {
		return err
	}
	tc := tls.Client(nc, tlstest.ClientConfig())
	if err := tc.Handshake(); err != nil {
		return err
	}
	if _, err := io.WriteString(tc, "SINK 5\r\nabcdeECHO y\r\nQUIT\r\n"); err != nil {
		return err
	}
	if err := expect(tc, "+8587d865\r\n+y\r\n+bye\r\n"); err != nil {
		return err
	}
	return tc.CloseWrite()
}

// A reset or a FIN after every byte that a client sends, from the first command
// to close_notify: no panic, every connection ends once, nothing stays behind.
func TestEndAtEveryByteOfASession(t *testing.T) {
	s := start(t, withLimits(Limits{Linger: 200 * time.Millisecond}))
	step := 1
	if testing.Short() {
		step = 29
	}
	before := descriptors()
	for _, reset := range []bool{true, false} {
		for n, ended := 0, false; !ended; n += step {
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
			err = whole(&cutter{nc.(*net.TCPConn), n, reset})
			ended = err == nil // the whole session is shorter than n
			if err != nil && !errors.Is(err, errCut) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
			nc.Close()
		}
	}
	eventually(t, "all gone", func() bool { return s.eng.Stats().Open == 0 })
	eventually(t, "descriptors back", func() bool { return descriptors() <= before })
	if strings.Contains(s.log.String(), "level=ERROR") {
		t.Error(s.log)
	}
}
