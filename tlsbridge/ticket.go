package tlsbridge

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
)

// The ticket of a Binding has the session twice, for two who have no key in common:
//
//	mark, length of shared (2 bytes), shared, own
//
// shared is what Config.EncryptTicket makes, for a connection to come, maybe at another
// node. own is sealed with the Binding's key. Each is authenticated by itself: a client
// that joins parts of two tickets has what it had.
const ticketMark = "tlsbridge bound 1"

// maxBoth bounds both parts. With certificates of a client in it a session has some
// thousand bytes, and a ClientHello with its ticket is to fit into the first flight
// (14,600 bytes, RFC 6928). A longer ticket goes without shared: only data connections
// have to resume.
const maxBoth = 12 << 10

func joinTicket(shared, own []byte) []byte {
	if len(shared)+len(own) > maxBoth {
		shared = nil
	}
	ticket := make([]byte, 0, len(ticketMark)+2+len(shared)+len(own))
	ticket = append(ticket, ticketMark...)
	ticket = binary.BigEndian.AppendUint16(ticket, uint16(len(shared)))
	ticket = append(ticket, shared...)
	return append(ticket, own...)
}

// cutTicket returns the parts of a ticket, which anyone may have made up. One without
// the mark is no Binding's, and all shared.
func cutTicket(ticket []byte) (shared, own []byte) {
	const head = len(ticketMark) + 2
	if len(ticket) < head || string(ticket[:len(ticketMark)]) != ticketMark {
		return ticket, nil
	}
	n := int(binary.BigEndian.Uint16(ticket[len(ticketMark):]))
	parts := ticket[head:]
	if n > len(parts) {
		return nil, nil
	}
	return parts[:n], parts[n:]
}

// wrap returns the ticket of a session by cfg.
func (b *Binding) wrap(cfg *tls.Config, cs tls.ConnectionState, session *tls.SessionState) ([]byte, error) {
	shared, err := cfg.EncryptTicket(cs, session)
	if err != nil {
		return nil, err
	}
	b.begin(cfg)
	aead, ok := b.aead(cfg)
	if !ok {
		return shared, nil
	}
	state, err := session.Bytes()
	if err != nil {
		return nil, err
	}
	return joinTicket(shared, aead.Seal(nil, nil, state, nil)), nil
}

// unwrap returns the session in a ticket of b by cfg; nil if it is none.
func (b *Binding) unwrap(cfg *tls.Config, ticket []byte) *tls.SessionState {
	aead, ok := b.aead(cfg)
	if !ok {
		return nil
	}
	_, own := cutTicket(ticket)
	state, err := aead.Open(nil, nil, own, nil)
	if err != nil {
		return nil
	}
	session, err := tls.ParseSessionState(state)
	if err != nil {
		return nil // like DecryptTicket
	}
	return session
}

// begin makes cfg the one that b is for, unless there is one.
func (b *Binding) begin(cfg *tls.Config) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg == nil {
		b.cfg = cfg
		_, _ = rand.Read(b.key[:]) // never fails
	}
}

// aead returns what b's tickets by cfg are sealed with; false: b has none by that one.
func (b *Binding) aead(cfg *tls.Config) (cipher.AEAD, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cfg != cfg {
		return nil, false
	}
	block, err := aes.NewCipher(b.key[:])
	if err != nil {
		panic(err) // the key has the right length
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // AES has the right block size
	}
	return aead, true
}
