// Package codec is the sans-I/O half of a text protocol server: framing out of
// buffered bytes (lines, dot-terminated blocks, counted chunks), replies, and
// the Session interface that a protocol implements and the engine drives.
//
// A Session never touches a socket. It is given the bytes that have arrived,
// consumes one frame a Step, appends its reply, and says with one Action what
// has to happen next. The same Session therefore serves plaintext and TLS,
// runs in tests without a network, and is fuzzed as it is.
package codec

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"strconv"
	"unique"
)

// Action says what a Step wants to happen next.
type Action uint8

const (
	// NeedMore: no complete frame is buffered. Step may still have consumed
	// bytes (of a line that is being skipped, of a body), but that is no
	// progress of the dialogue: a deadline for a complete command keeps running.
	NeedMore Action = iota
	// Continue: one frame was consumed. Step again.
	Continue
	// Upgrade: the frame was STARTTLS and the session allows it. Nothing has
	// been appended for it: the engine now calls GoAhead, or Refuse with
	// Injected or TLSUnavailable.
	Upgrade
	// Lend: what comes next may wait (a disk, a dial). The engine calls the
	// following Steps from a goroutine that may block, the first one at once,
	// even with no input.
	Lend
	// Return: the waiting is over; the connection may go back to its event loop.
	// Only a Step that was called after Lend returns it.
	Return
	// Close: send what was appended, then end the connection in good order.
	Close

	// The others are for a Relayed session alone.

	// Dial: the next frame, of which nothing was consumed, is for the backend, and
	// there is no connection to it yet. The engine makes one, has it introduced on
	// a goroutine, and calls Forward; or it calls Refuse with Unavailable. By Step.
	Dial
	// Content: a part of a message or the like was consumed, and more of it is to
	// come. By Forward and Reply.
	Content
	// Hold: the next frame of the client has to wait until a reply of the backend
	// was consumed. By Forward. By Reply: the next frame of the backend, of which
	// nothing was consumed, has to wait until the State of Data changes; it counts
	// also if the backend has ended by then.
	Hold
	// Opaque: from here on bytes are carried across unseen, those that are buffered
	// included. By Reply.
	Opaque
)

// Refusal is the reason for which the engine, not the session, turns a peer away.
type Refusal uint8

const (
	// Busy: too many connections, in all or from this client. Said instead of the greeting.
	Busy Refusal = iota
	// Draining: the server is shutting down.
	Draining
	// TimedOut: a deadline passed while a command was awaited.
	TimedOut
	// TLSUnavailable: STARTTLS cannot be served now. The session goes on in plaintext.
	TLSUnavailable
	// Injected: plaintext stood behind STARTTLS in the buffer.
	Injected
	// Internal: the session failed in a way that is our fault.
	Internal
	// Unavailable: the backend cannot be reached, has ended or does not answer.
	Unavailable
)

// Session is the server side of one protocol on one connection.
//
// The engine calls its methods one at a time, never two at once: on the
// connection's event loop, and between Lend and Return on a goroutine. On the
// loop no method may wait. Methods that take out append to it and return it;
// they keep neither out nor in after they return. Replies are complete lines.
type Session interface {
	// Greet appends the greeting. On an implicit-TLS listener Secured comes first.
	Greet(out []byte) []byte

	// Step consumes at most one frame from the front of in, n bytes, and appends
	// its reply to out. in is all that is buffered and not yet consumed; it may
	// be empty and it may end anywhere. A session leaves no more than 16 KiB of it
	// unconsumed when it needs more, and appends no more than 256 KiB.
	Step(in, out []byte) (n int, _ []byte, _ Action)

	// GoAhead appends the go-ahead for the STARTTLS that Step has just reported.
	// Nothing in plaintext follows it.
	GoAhead(out []byte) []byte

	// Secured tells that the handshake has succeeded: everything learnt in clear
	// is forgotten and STARTTLS is no longer offered. state is the engine's; copy
	// what is needed. What is appended is sent under TLS unasked (RFC 5804 §2.2).
	Secured(state *tls.ConnectionState, out []byte) []byte

	// Refuse appends the protocol's words for r, or nothing where the protocol has
	// none at this point of the dialogue, such as in the middle of a reply. Unless r
	// is TLSUnavailable, the connection then ends.
	Refuse(r Refusal, out []byte) []byte

	// End tells that the connection is over; no method is called after it. When
	// something is left to tidy up that may wait, such as a half-received
	// message, it returns a function that the engine runs on a goroutine, else nil.
	End() func()
}

// Describer is a Session that has something to say in the connection's log line:
// never content, addresses or secrets. trouble asks for a line that an operator
// sees, such as when a backend has failed. It is called before End.
type Describer interface {
	Describe() (attrs []slog.Attr, trouble bool)
}

// Peer is what a new Session is told about its connection. It is kept small,
// because every idle connection has one.
type Peer struct {
	ID     ConnID
	Remote netip.AddrPort // the client
	local  unique.Handle[netip.AddrPort]
}

// NewPeer returns the Peer of a connection from remote to local.
func NewPeer(id ConnID, remote, local netip.AddrPort) Peer {
	return Peer{ID: id, Remote: remote, local: unique.Make(local)}
}

// Local is our side of the connection.
func (p *Peer) Local() netip.AddrPort {
	if p.local == (unique.Handle[netip.AddrPort]{}) {
		return netip.AddrPort{}
	}
	return p.local.Value()
}

// ConnID tells connections apart; it appears in the log line and in what a
// session leaves behind. It is not used again after a restart.
type ConnID uint64

// String is short, of digits and lower-case letters.
func (id ConnID) String() string { return strconv.FormatUint(uint64(id), 36) }

// MarshalText implements encoding.TextMarshaler, for logs.
func (id ConnID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }
