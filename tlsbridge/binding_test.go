package tlsbridge

import (
	"crypto/tls"
	"errors"
	"sync"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// oneSession is a client's session cache that a test can copy from one client to another.
type oneSession struct{ session *tls.ClientSessionState }

func (s *oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.session, s.session != nil }
func (s *oneSession) Put(_ string, session *tls.ClientSessionState) {
	if session != nil { // a ticket that was used once is kept, to be used again
		s.session = session
	}
}

// ftpClient is a client with its own cache.
type ftpClient struct {
	t       testing.TB
	cfg     *tls.Config
	session *oneSession
}

func newFTPClient(t testing.TB, version uint16) *ftpClient {
	c := &ftpClient{t: t, cfg: clientConfig(version), session: &oneSession{}}
	c.cfg.ClientSessionCache = c.session
	return c
}

// connect shakes hands with a server of cfg and has it send a byte, with which the
// ticket is read. It returns the errors of both.
func (c *ftpClient) connect(cfg *tls.Config) (state tls.ConnectionState, served, err error) {
	a := startAccept(c.t, false, cfg, NewSlots(SlotLimits{}), Options{})
	go func() {
		if <-a.over; a.err == nil {
			_, _ = a.conn.Write([]byte("x"))
			return
		}
		a.waiter.Conn.(*wireEnd).tx.close() // what the client still sends does not meet a reset
	}()
	_, err = tls.Client(a.peer, c.cfg).Read(make([]byte, 1))
	if <-a.over; a.err == nil {
		state = a.conn.ConnectionState()
	}
	a.counts(SlotCounts{})
	return state, a.err, err
}

// passes expects a handshake that resumes, or one that does not.
func (c *ftpClient) passes(what string, cfg *tls.Config, resumed bool) tls.ConnectionState {
	c.t.Helper()
	state, served, err := c.connect(cfg)
	if served != nil || err != nil || state.DidResume != resumed {
		c.t.Fatalf("%s: resumed %v, server %v, client %v", what, state.DidResume, served, err)
	}
	return state
}

// refused expects a handshake that fails for want of the right session, and a client that is told.
func (c *ftpClient) refused(what string, cfg *tls.Config) {
	c.t.Helper()
	_, served, err := c.connect(cfg)
	he, ok := served.(*HandshakeError)
	if !ok || he.Reason != ReasonNotResumed || !errors.Is(served, ErrNotResumed) {
		c.t.Errorf("%s: server ended with %v", what, served)
	}
	if err == nil || err.Error() != "remote error: tls: bad certificate" {
		c.t.Errorf("%s: the client was told %v", what, err)
	}
}

func TestDataConnectionResumesTheSessionOfItsControlConnection(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg, c, b := tlstest.ServerConfig(), newFTPClient(t, version), new(Binding)
		c.passes("control", b.Issue(cfg), false)
		of := *c.session
		data := b.Require(cfg)
		for range 3 { // each by the ticket of the one before
			c.passes("data", data, true)
		}
		*c.session = of
		c.passes("by the first ticket again", data, true)
	})
}

func TestDataConnectionWithoutTheRightTicketIsRefused(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg, b := tlstest.ServerConfig(), new(Binding)
		none := newFTPClient(t, version)
		none.cfg.ClientSessionCache = nil
		none.refused("no ticket", b.Require(cfg))

		other := newFTPClient(t, version)
		other.passes("control", new(Binding).Issue(cfg), false)
		other.refused("ticket of another control connection", b.Require(cfg))

		plain := newFTPClient(t, version)
		plain.passes("plain", cfg, false)
		plain.refused("ticket of no control connection", b.Require(cfg))

		foreign := newFTPClient(t, version)
		foreign.passes("control elsewhere", b.Issue(tlstest.ServerConfig()), false)
		foreign.refused("ticket of other keys", b.Require(cfg))

		off := cfg.Clone()
		off.SessionTicketsDisabled = true
		newFTPClient(t, version).refused("tickets are disabled", b.Require(off))
	})
}

// In TLS 1.3 the client of a handshake that is refused has been sent a ticket.
func TestARefusedHandshakeIsNoWayIn(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg, c, b := tlstest.ServerConfig(), newFTPClient(t, version), new(Binding)
		for range 3 {
			c.refused("again", b.Require(cfg))
		}
		if (c.session.session != nil) != (version == tls.VersionTLS13) {
			t.Error("the premise has changed")
		}
	})
}

func TestControlConnectionMayResumeAndIsBoundAnew(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg, c, first, second := tlstest.ServerConfig(), newFTPClient(t, version), new(Binding), new(Binding)
		c.passes("plain", cfg, false)
		c.passes("first control", first.Issue(cfg), true)
		old := *c.session
		c.passes("second control", second.Issue(cfg), true)
		c.passes("its data", second.Require(cfg), true)
		c.refused("its ticket at the first", first.Require(cfg))
		*c.session = old
		c.refused("the first's ticket at the second", second.Require(cfg))
		*c.session = old
		c.passes("the first's ticket at the first", first.Require(cfg), true)
	})
}

func TestKeysRotateWhileConnectionsAreBound(t *testing.T) {
	cfg := tlstest.ServerConfig()
	cfg.SetSessionTicketKeys([][32]byte{{1}})
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for i := byte(1); ; i++ {
			select {
			case <-done:
				return
			default:
				cfg.SetSessionTicketKeys([][32]byte{{i}, {1}})
			}
		}
	})
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			c, b := newFTPClient(t, tls.VersionTLS13), new(Binding)
			control, data := b.Issue(cfg), b.Require(cfg)
			for range 10 {
				if _, served, err := c.connect(control); served != nil || err != nil {
					t.Error(served, err)
				}
				if _, served, _ := c.connect(data); served != nil && !errors.Is(served, ErrNotResumed) {
					t.Error(served)
				}
			}
		})
	}
	clients.Wait()
	close(done)
	all.Wait()
}

// reloaded is cfg as one whose client CAs can be replaced.
func reloaded(current func() *tls.Config) *tls.Config {
	cfg := tlstest.ServerConfig()
	cfg.ClientAuth = tls.RequireAndVerifyClientCert
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return current(), nil }
	return cfg
}

func TestBindingOfAClientWithACertificate(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		newCurrent := func() *tls.Config {
			cfg := tlstest.ServerConfig()
			cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
			return cfg
		}
		current := newCurrent()
		cfg, c, b := reloaded(func() *tls.Config { return current }), newFTPClient(t, version), new(Binding)
		c.cfg.Certificates = []tls.Certificate{tlstest.ClientCertificate("alice")}
		data := b.Require(cfg)
		c.refused("no ticket", data)
		c.passes("control", b.Issue(cfg), false)
		for range 2 {
			state := c.passes("data", data, true)
			if peer := state.PeerCertificates; len(peer) != 1 || peer[0].Subject.CommonName != "alice" {
				t.Errorf("peer certificates %v", peer)
			}
		}
		c.passes("control again", b.Issue(cfg), true)
		other := newFTPClient(t, version)
		other.cfg.Certificates = []tls.Certificate{tlstest.ClientCertificate("bob")}
		other.passes("control of another", new(Binding).Issue(cfg), false)
		other.refused("data of another", data)
		current = newCurrent() // other CAs, and keys of its own
		c.refused("a session of the CAs before", data)
	})
}

func TestBindingWhereNoOtherConfigIsChosen(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg := reloaded(func() *tls.Config { return nil })
		cfg.ClientAuth = tls.NoClientCert
		c, b := newFTPClient(t, version), new(Binding)
		c.passes("control", b.Issue(cfg), false)
		c.passes("data", b.Require(cfg), true)
		newFTPClient(t, version).refused("no ticket", b.Require(cfg))
		cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return nil, errCause }
		if _, served, _ := c.connect(b.Require(cfg)); !errors.Is(served, errCause) {
			t.Error(served)
		}
	})
}

func TestBoundConnectionIsStillVerifiedByItsConfig(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		calls, verdict := 0, error(nil)
		cfg, c, b := tlstest.ServerConfig(), newFTPClient(t, version), new(Binding)
		cfg.VerifyConnection = func(tls.ConnectionState) error { calls++; return verdict }
		control, data := b.Issue(cfg), b.Require(cfg)
		c.passes("control", control, false)
		c.passes("data", data, true)
		if calls != 2 {
			t.Errorf("%d calls", calls)
		}
		verdict = errCause
		for _, cfg := range []*tls.Config{control, data} {
			if _, served, _ := c.connect(cfg); !errors.Is(served, errCause) {
				t.Error(served)
			}
		}
	})
}

func TestBindingLeavesItsConfigAsItIs(t *testing.T) {
	cfg, c, b := tlstest.ServerConfig(), newFTPClient(t, tls.VersionTLS13), new(Binding)
	c.passes("control", b.Issue(cfg), false)
	c.passes("data", b.Require(cfg), true)
	if cfg.WrapSession != nil || cfg.UnwrapSession != nil || cfg.VerifyConnection != nil || cfg.GetConfigForClient != nil {
		t.Error("the Config was changed")
	}
	newFTPClient(t, tls.VersionTLS13).passes("without the binding", cfg, false)
}
