package engine

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// onEntry is a TLS configuration whose callback calls f with the number of the handshake.
func onEntry(f func(n int64)) *tls.Config {
	var entered atomic.Int64
	cfg := tlstest.ServerConfig()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		f(entered.Add(1))
		return nil, nil
	}
	return cfg
}

// flood starts n handshakes, and returns what waits for their end.
func (s *server) flood(n int) (wait func()) {
	var all sync.WaitGroup
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = s.dial()
		clients[i].send("STARTTLS\r\n")
		clients[i].expect("+go")
	}
	for _, c := range clients {
		all.Go(func() {
			if err := tls.Client(c.Conn, tlstest.ClientConfig()).Handshake(); err != nil {
				s.t.Error(err)
			}
		})
	}
	return all.Wait
}

// While more handshakes are ready than the loop can compute, it looks at its
// sockets after each turn of this length: sessions go on.
func TestSessionGoesOnInAStormOfHandshakes(t *testing.T) {
	const handshakes = 30
	var entered atomic.Int64
	s := start(t, func(c *Config) {
		c.Loops = 1
		c.Listeners[0].TLS = onEntry(func(n int64) { entered.Store(n); time.Sleep(5 * turnTime) })
	})
	session := s.dial()
	wait := s.flood(handshakes)
	trips := 0
	for entered.Load() < handshakes {
		session.send("ECHO on\r\n")
		session.expect("+on")
		trips++
	}
	wait()
	if trips < handshakes/3 {
		t.Errorf("%d round trips during %d handshakes", trips, handshakes)
	}
}

// With TLSWaits a callback that stands still holds its own handshake up and nobody else.
func TestWaitingCallbackDoesNotHoldTheLoop(t *testing.T) {
	open := make(chan struct{})
	var entered atomic.Int64
	s := start(t, func(c *Config) {
		c.Loops = 1
		c.Handshakes.Computing = 2
		c.Listeners[0].TLSWaits = true
		c.Listeners[0].TLS = onEntry(func(n int64) {
			entered.Store(n)
			if n == 1 {
				<-open
			}
		})
	})
	session := s.dial()
	wait := s.flood(1)
	eventually(t, "the callback", func() bool { return entered.Load() == 1 })
	session.send("ECHO still here\r\n")
	session.expect("+still here")
	other := s.dialTLS() // computes in the other slot
	other.send("ECHO under tls\r\n")
	other.expect("+under tls")
	close(open)
	wait()
}

// hello is a ClientHello.
func hello() []byte {
	client, server := net.Pipe()
	go func() { _ = tls.Client(client, tlstest.ClientConfig()).Handshake() }()
	b := make([]byte, 4096)
	n, _ := server.Read(b)
	_ = server.Close()
	return b[:n]
}

// A handshake that ends with its connection before its turn has come leaves nothing.
func TestTurnsOfEndedConnectionsLeaveNothing(t *testing.T) {
	s := start(t, func(c *Config) {
		c.Loops = 1
		c.Listeners[0].TLS = onEntry(func(int64) { time.Sleep(turnTime) })
		c.Listeners[0].Limits = Limits{Handshake: 300 * time.Millisecond}
	})
	whole := hello()
	for i := range 100 {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		c.send(string(whole[:len(whole)-i%2]))
		if i%3 == 0 {
			_ = c.Close()
		}
	}
	eventually(t, "the end of all handshakes", func() bool {
		st := s.eng.Stats()
		return st.Handshake == HandshakeStats{} && st.Open == 0 && st.Failed == 100
	})
}
