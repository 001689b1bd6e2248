package peers

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// clientTLS is what every load's client offers: nothing but TLS 1.3 with X25519,
// so that all servers do the same work. It takes tickets and never uses one, like a
// client that comes once: without a cache Go's client does not ask for any, and the
// servers that send theirs unasked would do more.
func clientTLS() *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true,
		ClientSessionCache: forgetful{},
		MinVersion:         tls.VersionTLS13,
		CurvePreferences:   []tls.CurveID{tls.X25519},
	}
}

type forgetful struct{}

func (forgetful) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (forgetful) Put(string, *tls.ClientSessionState)        {}

// link is one end of a connection through memory. What is written is one message
// for the other end, which has to read it before long: there is room for few.
type link struct {
	in, out chan []byte
	rest    []byte
	enter   func() // before the transport does anything, and waits
	leave   func() // after it
}

func newLinks() (a, b *link) {
	const room = 16 // more than there are writes in a handshake
	there, back := make(chan []byte, room), make(chan []byte, room)
	nothing := func() {}
	return &link{in: there, out: back, enter: nothing, leave: nothing},
		&link{in: back, out: there, enter: nothing, leave: nothing}
}

func (l *link) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		l.enter()
		b, ok := <-l.in
		l.leave()
		if !ok {
			return 0, io.EOF
		}
		l.rest = b
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *link) Write(p []byte) (int, error) {
	l.enter()
	defer l.leave()
	l.out <- append([]byte(nil), p...)
	return len(p), nil
}

// Close is called once.
func (l *link) Close() error {
	l.enter()
	defer l.leave()
	close(l.out)
	return nil
}

func (l *link) LocalAddr() net.Addr              { return memory{} }
func (l *link) RemoteAddr() net.Addr             { return memory{} }
func (l *link) SetDeadline(time.Time) error      { return nil }
func (l *link) SetReadDeadline(time.Time) error  { return nil }
func (l *link) SetWriteDeadline(time.Time) error { return nil }

type memory struct{}

func (memory) Network() string { return "memory" }
func (memory) String() string  { return "memory" }

const (
	floorCommand = "EHLO client.example\r\n"
	floorReply   = "250-peers.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 26214400\r\n"
)

// serveFloor is the server's half of a session.
func serveFloor(l *link, cfg *tls.Config) error {
	tc := tls.Server(l, cfg)
	defer tc.Close()
	if err := tc.Handshake(); err != nil {
		return err
	}
	buf := make([]byte, 512)
	if _, err := tc.Read(buf); err != nil {
		return err
	}
	_, err := io.WriteString(tc, floorReply)
	return err
}

var errFloor = errors.New("the floor's client got no reply")

// dialFloor is the client's half, until the server has closed.
func dialFloor(l *link, cfg *tls.Config) error {
	tc := tls.Client(l, cfg)
	defer tc.Close()
	if _, err := io.WriteString(tc, floorCommand); err != nil {
		return err
	}
	reply, err := io.ReadAll(tc)
	if err == nil && string(reply) != floorReply {
		err = errFloor
	}
	return err
}
