package engine

import (
	"net"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
)

// resident is what a loop's connection belongs to: a client's *conn, or the *relay
// of a backend's.
type resident interface {
	opened(gc gnet.Conn, lp *loop) gnet.Action
	traffic() gnet.Action
	// closed runs before the descriptor is closed, for what leaves the loop as well
	// as for what has ended. err is io.EOF when the peer has ended it, and nil when
	// we have.
	closed(gc gnet.Conn, err error)
}

// handler translates gnet's events; it has no policy.
type handler struct {
	gnet.BuiltinEventEngine
	e *Engine
}

// ticket brings a connection to a loop. used tells that it has arrived.
type ticket struct {
	who  resident
	used atomic.Bool
}

func (h *handler) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	t := gc.Context().(*ticket)
	gc.SetContext(t.who)
	forgetAddresses(gc)
	lp := h.e.loopOf(gc.EventLoop())
	t.used.Store(true)
	return nil, t.who.opened(gc, lp)
}

// forgetAddresses frees what gnet keeps of the addresses and never uses: c.peer has them.
func forgetAddresses(gc gnet.Conn) {
	for _, a := range []net.Addr{gc.RemoteAddr(), gc.LocalAddr()} {
		if addr, ok := a.(*net.TCPAddr); ok {
			addr.IP = nil
		}
	}
}

func (h *handler) OnTraffic(gc gnet.Conn) gnet.Action { return gc.Context().(resident).traffic() }

func (h *handler) OnClose(gc gnet.Conn, err error) gnet.Action {
	if who, ok := gc.Context().(resident); ok { // else it was let go of
		who.closed(gc, err)
	}
	return gnet.None
}
