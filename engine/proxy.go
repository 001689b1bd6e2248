package engine

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/panjf2000/gnet/v2"
	"github.com/pires/go-proxyproto"

	"starttlsd/codec"
)

// maxProxyHeader bounds a PROXY header of version 2 with all that proxies put into it.
const maxProxyHeader = 4 << 10

var errProxyHeader = errors.New("no PROXY header")

// trusts reports whether a may say who its clients are.
func (l *listener) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(l.Trusted, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
}

// identify waits for the PROXY header, which says who the client is, and lets the
// client in as if it had come itself. What follows the header stays where it is.
func (c *conn) identify() gnet.Action {
	buf, _ := c.link.gc.Peek(-1)
	n, err := proxyHeaderLen(buf)
	if n == 0 && err == nil {
		return gnet.None
	}
	if err == nil {
		err = c.learn(buf[:n])
	}
	if err != nil {
		c.blame(ReasonProxyHeader)
		c.lst.eng.log.Warn("no PROXY header from a trusted proxy; check that it sends one", "listener", c.lst.Name,
			"proxy", c.peer.Remote, "err", err)
		return gnet.Close
	}
	_, _ = c.link.gc.Discard(n)
	c.link.in += int64(n)
	if reason, ok := c.lst.door.identify(clientOf(c.peer.Remote.Addr())); !ok {
		c.blame(reason)
		c.lst.eng.refusals.add(c.peer.Remote.Addr(), c.lst.Name, reason.String())
		if c.lst.Implicit {
			return gnet.Close
		}
		return c.sayBye(codec.Busy)
	}
	c.marks &^= awaited
	return c.arrive()
}

// proxyHeaderLen is the length of the header at the front of buf, or 0 while it is
// not whole.
func proxyHeaderLen(buf []byte) (int, error) {
	n := 0
	switch v1, v2 := proxyproto.SIGV1, proxyproto.SIGV2; {
	case bytes.HasPrefix(buf, v1):
		if n = bytes.Index(buf, []byte("\r\n")) + 2; n == 1 {
			n = 0
		}
		if n > 107 || n == 0 && len(buf) >= 107 {
			return 0, errProxyHeader
		}
	case bytes.HasPrefix(buf, v2):
		if len(buf) < len(v2)+4 {
			return 0, nil
		}
		n = len(v2) + 4 + int(binary.BigEndian.Uint16(buf[len(v2)+2:]))
		if n > maxProxyHeader {
			return 0, errProxyHeader
		}
		if n > len(buf) {
			n = 0
		}
	case !bytes.HasPrefix(v1, buf) && !bytes.HasPrefix(v2, buf):
		return 0, errProxyHeader
	}
	return n, nil
}

// learn takes the addresses from a header. The proxy's own connections, such as
// health checks, keep theirs.
func (c *conn) learn(header []byte) error {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(header)))
	if err != nil {
		return err
	}
	if h.Command.IsLocal() {
		return nil
	}
	remote, ok1 := h.SourceAddr.(*net.TCPAddr)
	local, ok2 := h.DestinationAddr.(*net.TCPAddr)
	if !ok1 || !ok2 {
		return nil // UNKNOWN: the proxy does not know either
	}
	c.peer = codec.NewPeer(c.peer.ID, unmapped(remote), unmapped(local))
	return nil
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
