package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"slices"
)

// ErrNotResumed is the cause when a handshake does not resume the session that a
// Binding demands.
var ErrNotResumed = errors.New("tlsbridge: the handshake does not resume the session that it is bound to")

// Binding ties further TLS connections of a client to one that it has: they have to
// resume its session, and so come from whoever shook hands there. An FTP server
// demands that of its data connections.
//
// The proof is a session ticket with the binding in it. So a client without tickets
// never passes, nor does any where the tls.Config has SessionTicketsDisabled; and a
// ticket is good for as long as its key is among those of that Config, a week at most.
// The methods may be called from any goroutine.
type Binding struct{ id [16]byte }

// bindingMark begins our entry among those that others may have in a session.
const bindingMark = "tlsbridge binding 1 "

// NewBinding returns the binding of the connection that a process has given this
// number, without a need to keep it. process is random, so that no other process has
// the same; the binding itself need not be secret.
func NewBinding(process [8]byte, connection uint64) *Binding {
	b := &Binding{}
	copy(b.id[:], process[:])
	binary.BigEndian.PutUint64(b.id[len(process):], connection)
	return b
}

// Issue returns cfg for the connection that others are to be bound to: its tickets
// carry b. It may itself resume any session that cfg accepts, which does not make that
// session's old tickets pass Require.
//
// Tickets are made with the keys that cfg has at that moment. Where
// cfg.GetConfigForClient returns another Config, they are that one's: it has to be the
// same one for all connections, or one whose keys were set. A WrapSession or
// UnwrapSession in either is not called.
func (b *Binding) Issue(cfg *tls.Config) *tls.Config {
	bound := cfg.Clone()
	bound.UnwrapSession = cfg.DecryptTicket
	bound.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		session.Extra = append(session.Extra, b.entry())
		return cfg.EncryptTicket(cs, session)
	}
	bound.GetConfigForClient = chosen(cfg.GetConfigForClient, b.Issue)
	return bound
}

// Require returns cfg for a bound connection: the handshake fails with
// ReasonNotResumed and ErrNotResumed unless it resumes a session by a ticket that
// carries b. Its own tickets carry b too. The terms are those of Issue.
//
// A client of TLS 1.3 learns of the refusal behind the server's flight, and has then
// more to send: who closes at once resets the connection, and the alert may be lost.
func (b *Binding) Require(cfg *tls.Config) *tls.Config {
	bound := b.Issue(cfg)
	bound.UnwrapSession = func(ticket []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		session, err := cfg.DecryptTicket(ticket, cs)
		if err != nil || session == nil || !b.in(session) {
			return nil, err // a client may offer several
		}
		return session, nil
	}
	issue := bound.WrapSession
	bound.WrapSession = func(cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
		// TLS 1.3 sends the ticket ahead of VerifyConnection: that of a handshake
		// about to be refused must not be the key to the next.
		if !cs.DidResume {
			return cfg.EncryptTicket(cs, session)
		}
		return issue(cs, session)
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

// entry returns what a session carries.
func (b *Binding) entry() []byte { return append([]byte(bindingMark), b.id[:]...) }

// in reports whether session carries b. The ticket was authenticated, so a
// comparison that takes its time tells nothing.
func (b *Binding) in(session *tls.SessionState) bool {
	entry := b.entry()
	return slices.ContainsFunc(session.Extra, func(e []byte) bool { return bytes.Equal(e, entry) })
}
