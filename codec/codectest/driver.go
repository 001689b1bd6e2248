// Package codectest drives a codec.Session as the engine does, by the letter of its
// contract, without a socket: for tests of the sessions and for fuzzing.
package codectest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"

	"starttlsd/codec"
)

// Peer is a client, whose ID is "c1".
var Peer = codec.NewPeer(433, netip.MustParseAddrPort("192.0.2.1:40000"), netip.MustParseAddrPort("192.0.2.2:25"))

// TLS is what a handshake has come to.
var TLS = &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256, ServerName: "mx.test"}

// Driver is the engine to one session. A breach of the contract panics.
type Driver struct {
	Session codec.Session
	Out     []byte // said to the client and not looked at
	Up      []byte // sent to the backend and not looked at

	Closed    bool // the session has ended the connection, or has been ended
	Secure    bool
	Awaits    bool // the go-ahead was given: TLS is due
	NoSlots   bool // STARTTLS cannot be served
	Dialing   bool // the session has asked for its backend
	Connected bool // there is a backend
	Opaque    bool // its bytes are carried across unseen
	HungUp    int  // backends that were left for STARTTLS
	Data      Data // its data connections

	relayed  codec.Relayed // Session, if it is one
	held     []byte        // from the client, not consumed
	heldBack []byte        // from the backend, not consumed
	lent     bool
	on       bool // Forward said Hold, and no reply was consumed since
}

// Connect begins a session: under TLS from the start if secured.
func Connect(s codec.Session, secured bool) *Driver {
	d := &Driver{Session: s, Secure: secured}
	d.relayed, _ = s.(codec.Relayed)
	if secured {
		d.Out = s.Secured(TLS, d.Out)
	}
	d.Out = s.Greet(d.Out)
	d.step(true)
	return d
}

// Client is what the backend is told of.
func (d *Driver) Client() *codec.Client {
	c := &codec.Client{Peer: &Peer, Data: &d.Data}
	if d.Secure {
		c.TLS = TLS
	}
	return c
}

// Send gives the session one segment of the client's.
func (d *Driver) Send(p []byte) {
	switch {
	case d.Closed:
	case d.Awaits: // not a TLS record: the handshake fails, with no words
		d.Close()
	case d.Opaque:
		d.Up = append(d.Up, p...)
	default:
		d.held = append(d.held, p...)
		d.step(false)
	}
}

// Receive gives it one of the backend's.
func (d *Driver) Receive(p []byte) {
	switch {
	case d.Closed:
	case d.Opaque:
		d.Out = append(d.Out, p...)
	case !d.Connected:
		panic("no backend")
	default:
		d.heldBack = append(d.heldBack, p...)
		d.replies()
	}
}

// Introduce does what follows Dial. The error is the session's.
func (d *Driver) Introduce(u codec.Upstream) error {
	if !d.Dialing {
		panic("the session did not ask for its backend")
	}
	d.Dialing = false
	if err := d.relayed.Introduce(u, d.Client()); err != nil {
		d.Out = d.Session.Refuse(codec.Unavailable, d.Out)
		d.Close()
		return err
	}
	d.Connected = true
	d.forward(true)
	return nil
}

// Lose ends the backend's connection.
func (d *Driver) Lose() {
	if d.Closed {
		return
	}
	if !d.Opaque {
		d.Out = d.Session.Refuse(codec.Unavailable, d.Out)
	}
	d.Close()
}

// Refuse turns the client away.
func (d *Driver) Refuse(r codec.Refusal) {
	if !d.Opaque {
		d.Out = d.Session.Refuse(r, d.Out)
	}
	d.Close()
}

// Handshake is the success of one.
func (d *Driver) Handshake() {
	d.Awaits, d.Secure = false, true
	d.Out = d.Session.Secured(TLS, d.Out)
	d.step(true)
}

// Close ends the connection.
func (d *Driver) Close() {
	if d.Closed {
		return
	}
	d.Closed = true
	if tidy := d.Session.End(); tidy != nil {
		tidy()
	}
}

var errSpin = errors.New("a session that makes no progress")

// spin panics when a session goes on and on without consuming anything.
type spin int

func (s *spin) check(n int) {
	if *s++; n > 0 {
		*s = 0
	}
	if *s > 4 {
		panic(errSpin)
	}
}

// consumed is what is left of a buffer. A session keeps nothing of it, so it is spoilt.
func consumed(buf []byte, n int, needsMore bool) []byte {
	for i := range n {
		buf[i] = '#'
	}
	if len(buf)-n > 16<<10 && needsMore {
		panic(fmt.Sprintf("%d bytes are left unconsumed", len(buf)-n))
	}
	return buf[n:]
}

// step is for input of the client's while there is no backend; once also without any.
func (d *Driver) step(once bool) {
	if d.Connected {
		d.forward(once)
		return
	}
	var idle spin
	for ; !d.Closed && !d.Awaits && !d.Dialing && (len(d.held) > 0 || d.lent || once); once = false {
		n, out, action := d.Session.Step(d.held, d.Out)
		idle.check(n)
		d.held, d.Out = consumed(d.held, n, action == codec.NeedMore), out
		switch action {
		case codec.NeedMore:
			return
		case codec.Continue:
		case codec.Upgrade:
			d.upgrade()
		case codec.Lend:
			if d.lent {
				panic("Lend while lent")
			}
			d.lent = true
		case codec.Return:
			if !d.lent {
				panic("Return while not lent")
			}
			d.lent = false
		case codec.Close:
			d.Close()
		case codec.Dial:
			if d.relayed == nil || n > 0 {
				panic("Dial where it must not be")
			}
			d.Dialing = true
		default:
			panic(fmt.Sprintf("Step returned action %d", action))
		}
	}
}

func (d *Driver) forward(once bool) {
	var idle spin
	for ; !d.Closed && !d.Opaque && !d.Awaits && d.Connected && !d.on && (len(d.held) > 0 || once); once = false {
		n, up, out, action := d.relayed.Forward(d.held, d.Up, d.Out)
		idle.check(n)
		d.held, d.Up, d.Out = consumed(d.held, n, action == codec.NeedMore), up, out
		switch action {
		case codec.NeedMore:
			return
		case codec.Continue, codec.Content:
		case codec.Hold:
			if !d.relayed.Outstanding() {
				panic("Hold with no reply outstanding")
			}
			if d.on = len(d.held) > 0; !d.on {
				return
			}
		case codec.Upgrade:
			if d.relayed.Outstanding() {
				panic("Upgrade with a reply outstanding")
			}
			d.upgrade()
		case codec.Close:
			d.Close()
		default:
			panic(fmt.Sprintf("Forward returned action %d", action))
		}
	}
}

func (d *Driver) replies() {
	var idle spin
	for !d.Closed && len(d.heldBack) > 0 {
		n, out, action := d.relayed.Reply(d.heldBack, d.Out)
		idle.check(n)
		d.heldBack, d.Out = consumed(d.heldBack, n, action == codec.NeedMore), out
		switch action {
		case codec.NeedMore:
			return
		case codec.Hold:
			if n > 0 || !d.Data.moves() {
				panic("Hold with nothing to wait for")
			}
			return
		case codec.Content:
		case codec.Continue:
			d.on = false
			d.forward(false)
		case codec.Opaque:
			d.Opaque, d.on = true, false
			d.Up, d.held = append(d.Up, d.held...), nil
			d.Out, d.heldBack = append(d.Out, d.heldBack...), nil
			return
		case codec.Close:
			d.Close()
		default:
			panic(fmt.Sprintf("Reply returned action %d", action))
		}
	}
}

func (d *Driver) upgrade() {
	switch {
	case d.Secure || d.lent:
		panic("Upgrade where it must not be")
	case len(d.held) > 0:
		d.Out = d.Session.Refuse(codec.Injected, d.Out)
		d.Close()
	case d.NoSlots:
		d.Out = d.Session.Refuse(codec.TLSUnavailable, d.Out)
	default:
		if d.Connected {
			d.Connected, d.heldBack = false, nil
			d.HungUp++
			d.Data.Close()
		}
		d.Out = d.Session.GoAhead(d.Out)
		d.Awaits = true
	}
}
