package engine

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"starttlsd/codec"
	"starttlsd/tlsbridge/tlstest"
)

func behindProxies(networks ...string) option {
	return func(c *Config) {
		for _, n := range networks {
			c.Listeners[0].Trusted = append(c.Listeners[0].Trusted, netip.MustParsePrefix(n))
		}
	}
}

// whoami greets a client with its own address.
type whoami struct {
	chat
	peer *codec.Peer
}

func (w *whoami) Greet(out []byte) []byte {
	return append(out, "+"+w.peer.Remote.String()+" at "+w.peer.Local().String()+"\r\n"...)
}

func asWhoami(c *Config) {
	c.Listeners[0].NewSession = func(p *codec.Peer) codec.Session { return &whoami{chat: chat{sink: -1}, peer: p} }
}

// header is a PROXY header for a client.
func header(t *testing.T, version byte, from string) string {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)),
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:25")))
	if strings.HasPrefix(from, "192") {
		h = proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)),
			net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:25")))
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestProxyHeaderSaysWhoTheClientIs(t *testing.T) {
	for version := byte(1); version <= 2; version++ {
		for _, split := range []bool{false, true} {
			s := start(t, behindProxies("127.0.0.0/8"), asWhoami)
			c := s.dialSilent()
			h := header(t, version, "192.0.2.7:40000") + "ECHO right behind it\r\n"
			for len(h) > 0 {
				n := len(h)
				if split {
					n = 1
				}
				c.send(h[:n])
				h = h[n:]
			}
			c.expect("+192.0.2.7:40000 at 198.51.100.1:25", "+right behind it")
		}
	}
}

func TestProxyHeaderBeforeImplicitTLS(t *testing.T) {
	s := start(t, behindProxies("127.0.0.1/32"), asWhoami, func(c *Config) { c.Listeners[0].Implicit = true })
	c := s.dialSilent()
	c.send(header(t, 2, "[2001:db8::7]:40000"))
	c.handshake(tlstest.ClientConfig())
	c.expect("+[2001:db8::7]:40000 at [2001:db8::1]:25")
}

func TestProxyHeaderMalformedOrMissing(t *testing.T) {
	s := start(t, behindProxies("127.0.0.0/8"), withLimits(Limits{Handshake: 300 * time.Millisecond}))
	for _, bytes := range []string{
		"EHLO a\r\n", "PROXY TCP4 nonsense\r\n", "PROXY " + strings.Repeat("x", 200), "PROX", "",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x01x",
		"PROXY TCP4 1.2.3.4 1.2.3.4 99999 1\r\n",
	} {
		c := s.dialSilent()
		c.send(bytes)
		var p [1]byte
		if n, err := c.Read(p[:]); n > 0 || err == nil {
			t.Errorf("%q: answered", bytes)
		}
		c.Close()
	}
	s.saw(ReasonProxyHeader, 8)
}

func TestProxyThatIsNotTrusted(t *testing.T) {
	s := start(t, behindProxies("10.0.0.0/8"))
	c := s.dialSilent()
	_, _ = c.Write([]byte(header(t, 1, "192.0.2.7:40000")))
	if got, _ := c.r.ReadString('\n'); got != "" {
		t.Errorf("said %q", got)
	}
	s.saw(ReasonUntrusted, 1)
}

// The limits of a client are those of the real one, not of its proxy.
func TestProxiedClientsHaveTheirOwnLimits(t *testing.T) {
	s := start(t, behindProxies("127.0.0.0/8"), withAdmission(Admission{PerClient: 2, RatePerClient: 1000}))
	open := func(from string, want string) *client {
		c := s.dialSilent()
		c.send(header(t, 2, from))
		c.expect(want)
		return c
	}
	first := open("192.0.2.7:1", "+hello")
	open("192.0.2.7:2", "+hello")
	open("192.0.2.8:1", "+hello")
	refused := open("192.0.2.7:3", "-busy")
	refused.ended()
	refused.Close()
	s.saw(ReasonClientConnections, 1)
	first.send("QUIT\r\n")
	first.expect("+bye")
	first.Close()
	s.saw(ReasonDone, 1)
	open("192.0.2.7:4", "+hello")
}

func TestProxysOwnConnections(t *testing.T) {
	s := start(t, behindProxies("127.0.0.0/8"), asWhoami)
	c := s.dialSilent()
	c.send("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00") // LOCAL
	if line, _ := c.r.ReadString('\n'); !strings.HasPrefix(line, "+127.0.0.1:") {
		t.Errorf("greeted with %q", line)
	}
	s.dialSilent().send("PROXY UNKNOWN\r\n")
}
