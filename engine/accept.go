package engine

import (
	"io"
	"net"
	"time"

	"starttlsd/codec"
)

// acceptorsPerListener: enrolment waits for a loop, so one acceptor would take
// connections only as fast as the busiest loop turns.
const acceptorsPerListener = 16

// swapping and refusing bound the connections that take a second descriptor while
// they change hands, and those that linger after they were turned away.
const (
	swapping = 16
	refusing = 16
)

// admit enrols a connection with a loop, or turns it away.
func (l *listener) admit(nc net.Conn) {
	tc, ok := nc.(*net.TCPConn)
	if !ok || !dropZones(tc) {
		_ = nc.Close()
		return
	}
	defer func() {
		if v := recover(); v != nil { // the session's: it could be neither made nor asked for words
			l.eng.panicked(0, v)
			_ = tc.Close()
		}
	}()
	c := l.newConn(tc)
	if l.Trusted != nil {
		if !l.trusts(c.peer.Remote.Addr()) {
			l.refused(c, ReasonUntrusted)
			_ = tc.Close()
			return
		}
		c.marks.set(awaited)
	}
	reason, ok := l.enter(c.client())
	if !ok {
		l.refused(c, reason)
		l.turnAway(tc, &c.peer)
		return
	}
	if c.session = l.newSession(c); c.session == nil {
		_ = tc.Close()
		return
	}
	t := &ticket{who: c}
	// Only OnOpen having run is success: gnet may return a Conn that no loop has.
	_, err := l.eng.client.EnrollContext(tc, t)
	if !t.used.Load() {
		l.eng.log.Warn("no event loop took the connection", "listener", l.Name, "err", err)
		c.end(ReasonNoDescriptor)
	}
}

// refused takes note of a connection that is not let in.
func (l *listener) refused(c *conn, reason Reason) {
	l.stats.ended[reason].Add(1)
	l.eng.refusals.add(c.peer.Remote.Addr(), l.Name, reason.String())
	l.eng.log.Debug("refused", "listener", l.Name, "peer", c.peer.Remote, "reason", reason)
}

func (l *listener) newConn(tc *net.TCPConn) *conn {
	c := &conn{lst: l, started: l.eng.now()}
	c.peer = codec.NewPeer(codec.ConnID(l.eng.nextID.Add(1)),
		tc.RemoteAddr().(*net.TCPAddr).AddrPort(), tc.LocalAddr().(*net.TCPAddr).AddrPort())
	return c
}

// newSession makes the session of an admitted connection. If that panics, the
// connection has left again and nil is returned.
func (l *listener) newSession(c *conn) (s codec.Session) {
	defer func() {
		if v := recover(); v != nil {
			l.eng.panicked(c.peer.ID, v)
			l.leave(c.client(), plain)
			s = nil
		}
	}()
	return l.NewSession(&c.peer)
}

// dropZones takes the IPv6 zones out of tc's own addresses: gnet recycles a
// zone's string as a buffer when the connection closes. It reports whether tc
// has both addresses: after a reset it may not.
func dropZones(tc *net.TCPConn) bool {
	for _, a := range []net.Addr{tc.RemoteAddr(), tc.LocalAddr()} {
		addr, ok := a.(*net.TCPAddr)
		if !ok || addr == nil {
			return false
		}
		addr.Zone = ""
	}
	return true
}

// turnAway says why in the protocol's words, where it has any: before implicit
// TLS nothing can be said. The peer gets a moment to read it, if there are not
// too many like it.
func (l *listener) turnAway(tc *net.TCPConn, p *codec.Peer) {
	var words []byte
	if !l.Implicit {
		words = l.NewSession(p).Refuse(codec.Busy, nil)
	}
	if len(words) > 0 {
		_ = tc.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = tc.Write(words) // into an empty socket buffer: it does not wait
		select {
		case l.eng.refusing <- struct{}{}:
			l.eng.spawn(func() {
				defer func() { <-l.eng.refusing }()
				defer tc.Close()
				_ = tc.CloseWrite()
				_, _ = io.Copy(io.Discard, io.LimitReader(tc, 4096))
			})
			return
		default:
		}
	}
	_ = tc.Close()
}
