package engine

import (
	"context"
	"net"
	"testing"

	"starttlsd/codec"
)

func TestSessionThatWantsABackendWhereThereIsNoneIsRefusedInWords(t *testing.T) {
	s := start(t, func(c *Config) { c.Listeners[0].NewSession = newFront })
	c := s.dial()
	c.send("x\r\n")
	c.expect("-no backend")
	c.ended()
	c.Close()
	s.saw(ReasonNoBackend, 1)
}

// gnet recycles the zone of an address as a buffer.
func TestZoneOfABackendNeverReachesGnet(t *testing.T) {
	b := backend(t, false, answer)
	var tcp *net.TCPConn
	s := start(t, relayTo(b), func(c *Config) {
		c.Listeners[0].Dial = func(ctx context.Context, s codec.Relayed, cl *codec.Client) (Upstream, error) {
			up, err := b.dial(ctx, s, cl)
			tcp = up.TCP
			tcp.RemoteAddr().(*net.TCPAddr).Zone = string([]byte("eth0"))
			tcp.LocalAddr().(*net.TCPAddr).Zone = string([]byte("eth0"))
			return up, err
		}
	})
	c := s.dial()
	c.send("x\r\n")
	c.expect("+x")
	_ = s.eng.Close()
	for _, a := range []net.Addr{tcp.RemoteAddr(), tcp.LocalAddr()} {
		if zone := a.(*net.TCPAddr).Zone; zone != "" {
			t.Errorf("the zone %q went to gnet", zone)
		}
	}
}
