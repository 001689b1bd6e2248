package tlsbridge

import (
	"crypto/tls"
	"errors"
	"sync"
)

// ErrNotResumed is the cause when a handshake does not resume the session that a
// Binding demands.
var ErrNotResumed = errors.New("tlsbridge: the handshake does not resume the session that it is bound to")

// Binding ties further TLS connections of a client to one that it has: they have to
// resume its session, and so come from whoever shook hands there. An FTP server
// demands that of its data connections. The zero Binding is ready for one connection
// and those that are bound to it. The methods may be called from any goroutine.
//
// The proof is a session ticket that this Binding has sealed, with a key that it shares
// with nobody: neither does it end when those of the tls.Config are rotated, nor are
// those kept for it. So a client without tickets never passes, nor does any where the
// Config has SessionTicketsDisabled. crypto/tls lets a session of TLS 1.2 go on for a
// week from its full handshake, and one of TLS 1.3 for a week from its ticket.
type Binding struct {
	mu  sync.Mutex
	cfg *tls.Config // that its tickets are for; nil: there are none yet
	key [32]byte    // of AES-256, random; goes with the Binding
}

// Issue returns cfg for the connection that others are to be bound to: its tickets pass
// Require. It may itself resume any session that cfg accepts, which does not make that
// session's old tickets pass.
//
// Its tickets also resume where Issue was applied to a Config with the same keys, which are
// those that cfg has at that moment. Where cfg.GetConfigForClient returns another Config,
// it is that one that counts. It has to be the same one for as long as further connections
// are to pass: those of another one, which may trust others, need a new Binding. A WrapSession
// or UnwrapSession in either is not called.
func (b *Binding) Issue(cfg *tls.Config) *tls.Config {
	bound := cfg.Clone()
	bound.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		shared, _ := cutTicket(ticket)
		return cfg.DecryptTicket(shared, cs)
	}
	bound.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		return b.wrap(cfg, cs, session)
	}
	bound.GetConfigForClient = chosen(cfg.GetConfigForClient, b.Issue)
	return bound
}

// Require returns cfg for a bound connection: the handshake fails with
// ReasonNotResumed and ErrNotResumed unless it resumes a session by a ticket that b has
// sealed. Its own tickets are such ones too. The terms are those of Issue.
//
// A client of TLS 1.3 learns of the refusal behind the server's flight, and has then
// more to send: who closes at once resets the connection, and the alert may be lost.
func (b *Binding) Require(cfg *tls.Config) *tls.Config {
	bound := b.Issue(cfg)
	bound.UnwrapSession = func(ticket []byte, _ tls.ConnectionState) (*tls.SessionState, error) {
		return b.unwrap(cfg, ticket), nil // nil: a client may offer several
	}
	bound.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		// TLS 1.3 sends the ticket ahead of VerifyConnection: that of a handshake
		// about to be refused must not be the key to the next.
		if !cs.DidResume {
			return cfg.EncryptTicket(cs, session)
		}
		return b.wrap(cfg, cs, session)
	}
	bound.VerifyConnection = func(cs tls.ConnectionState) error {
		if !cs.DidResume {
			return ErrNotResumed
		}
		if cfg.VerifyConnection != nil {
			return cfg.VerifyConnection(cs)
		}
		return nil
	}
	bound.GetConfigForClient = chosen(cfg.GetConfigForClient, b.Require)
	return bound
}

// configForClient is the type of GetConfigForClient.
type configForClient = func(*tls.ClientHelloInfo) (*tls.Config, error)

// chosen has bind applied to what choose, which may be nil, returns.
func chosen(choose configForClient, bind func(*tls.Config) *tls.Config) configForClient {
	if choose == nil {
		return nil
	}
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg, err := choose(hello)
		if err != nil || cfg == nil { // nil: the Config that asks, which is bound
			return nil, err
		}
		return bind(cfg), nil
	}
}
