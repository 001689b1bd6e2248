package engine

import (
	"errors"
	"io"
	"net"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
)

// handler translates gnet's events; it has no policy.
type handler struct {
	gnet.BuiltinEventEngine
	e *Engine
}

// ticket brings a connection to a loop. used tells that it has arrived.
type ticket struct {
	c    *conn
	used atomic.Bool
}

func (h *handler) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	t := gc.Context().(*ticket)
	c := t.c
	gc.SetContext(c)
	if c.link.lp == nil {
		c.link.lp = h.e.loopOf(gc.EventLoop())
	}
	c.link.gc = gc
	forgetAddresses(gc)
	c.setHolder(onLoop)
	t.used.Store(true)
	return nil, c.guarded((*conn).arrive)
}

// forgetAddresses frees what gnet keeps of the addresses and never uses: c.peer has them.
func forgetAddresses(gc gnet.Conn) {
	for _, a := range []net.Addr{gc.RemoteAddr(), gc.LocalAddr()} {
		if addr, ok := a.(*net.TCPAddr); ok {
			addr.IP = nil
		}
	}
}

func (h *handler) OnTraffic(gc gnet.Conn) gnet.Action {
	c := gc.Context().(*conn)
	return c.guarded((*conn).traffic)
}

// OnClose runs for every connection that leaves a loop: one that is being lent
// as well as one that has ended.
func (h *handler) OnClose(gc gnet.Conn, err error) gnet.Action {
	c := gc.Context().(*conn)
	defer func() {
		if v := recover(); v != nil {
			c.panicked(v)
		}
	}()
	c.link.gc = nil // from here on the descriptor may be another client's
	c.link.lp.timers.remove(c)
	if c.heldBy() == leaving {
		c.setHolder(lent)
		h.e.spawn(c.runLent)
		return gnet.None
	}
	switch {
	case errors.Is(err, io.EOF):
		c.end(ReasonPeerClosed)
	case err != nil:
		c.end(ReasonReset)
	default:
		c.end(ReasonDrained) // closed by the engine; who closed for another reason has blamed it
	}
	return gnet.None
}
