package tlsbridge

import (
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
)

// MaxOutbound is what may wait in gnet for a slow peer, in bytes, before
// GnetLink.Write fails with ErrOverflow.
const MaxOutbound = 1 << 20

// ErrOverflow is the error of a GnetLink whose peer does not read.
var ErrOverflow = errors.New("tlsbridge: too much unsent output")

// GnetLink is the Link over a gnet connection that stays on its event loop. All
// its methods but Wake and the addresses are for that loop.
type GnetLink struct {
	c             gnet.Conn
	local, remote net.Addr // gnet forgets them at the end of the connection
	closed        atomic.Bool
}

// NewLink returns the Link over c. Call it in OnOpen or OnTraffic, and call its
// Closed in OnClose.
func NewLink(c gnet.Conn) *GnetLink {
	return &GnetLink{c: c, local: c.LocalAddr(), remote: c.RemoteAddr()}
}

// Read returns what gnet has read, or ErrWouldBlock.
func (l *GnetLink) Read(p []byte) (int, error) {
	if l.closed.Load() {
		return 0, net.ErrClosed
	}
	n, err := l.c.Read(p)
	if err == io.ErrShortBuffer {
		err = ErrWouldBlock
	}
	return n, err
}

// Write sends p, or leaves to gnet what the socket does not take. After an error
// the connection is not touched again: its descriptor may be another client's.
func (l *GnetLink) Write(p []byte) (int, error) {
	if l.closed.Load() {
		return 0, net.ErrClosed
	}
	if l.c.OutboundBuffered()+len(p) > MaxOutbound {
		return 0, ErrOverflow
	}
	n, err := l.c.Write(p)
	if err != nil {
		l.closed.Store(true)
		return 0, err
	}
	return n, nil
}

// Closed ends the use of the gnet connection. OnClose has to call it first thing.
func (l *GnetLink) Closed() { l.closed.Store(true) }

// Wake makes gnet call OnTraffic. It is meant for Options.Wake, hence for any goroutine.
func (l *GnetLink) Wake() {
	if !l.closed.Load() {
		_ = l.c.Wake(nil) // fails only when the engine is stopping
	}
}

// LocalAddr returns our address. Any goroutine.
func (l *GnetLink) LocalAddr() net.Addr { return l.local }

// RemoteAddr returns the peer's address. Any goroutine.
func (l *GnetLink) RemoteAddr() net.Addr { return l.remote }
