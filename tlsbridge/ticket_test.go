package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"strings"
	"testing"

	"starttlsd/tlsbridge/tlstest"
)

// rotate gives cfg the n-th key, and keeps the one before.
func rotate(cfg *tls.Config, n byte) { cfg.SetSessionTicketKeys([][32]byte{{n}, {n - 1}}) }

// ticket is the one that a client has.
func (c *ftpClient) ticket() []byte {
	c.t.Helper()
	ticket, _, err := c.session.session.ResumptionState()
	if err != nil || ticket == nil {
		c.t.Fatal("no ticket: ", err)
	}
	return ticket
}

func TestBoundSessionOutlivesTheKeysOfItsConfig(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		cfg, c, n := tlstest.ServerConfig(), newFTPClient(t, version), byte(1)
		rotate(cfg, n)
		for _, control := range []string{"full", "resumed"} {
			b := new(Binding)
			c.passes(control+" control", b.Issue(cfg), control == "resumed")
			of, data := *c.session, b.Require(cfg)
			for end := n + 4; n < end; n++ {
				rotate(cfg, n+1)
				*c.session = of
				c.passes("data, by the control connection's own ticket", data, true)
			}
			for end := n + 3; n < end; n++ {
				rotate(cfg, n+1)
			}
			c.passes("data, after a silence", data, true)
			latest := *c.session

			other := new(Binding)
			*c.session = of
			c.refused("data elsewhere", other.Require(cfg))
			*c.session = of
			c.passes("another control, by keys that are gone", other.Issue(cfg), false)
			c.refused("data of the first by its ticket", data)
			*c.session = latest // by the keys of now
		}
	})
}

func TestBoundSessionResumesOnAnotherNode(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		here, there, c := tlstest.ServerConfig(), tlstest.ServerConfig(), newFTPClient(t, version)
		rotate(here, 1)
		rotate(there, 2)
		first, second := new(Binding), new(Binding)
		c.passes("control here", first.Issue(here), false)
		of := *c.session
		c.passes("data here", first.Require(here), true)
		c.passes("control there", second.Issue(there), true)
		c.passes("data there", second.Require(there), true)
		c.refused("data here by the session there", first.Require(here))
		*c.session = of
		c.refused("data there by the session here", second.Require(there))
		*c.session = of
		c.refused("the same Binding there", first.Require(there))
		*c.session = of
		c.passes("data here still", first.Require(here), true)
	})
}

// A client's certificates are in the ticket twice, as long as that is not too much.
func TestTicketsOfBoundSessionsAreShort(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		for _, of := range []struct {
			name      string
			padding   int
			most      int
			resumable bool
		}{
			{"none", 0, 512, true},
			{"small", 5, 3 << 10, true},
			{"large", 4 << 10, maxBoth, true},
			{"huge", 8 << 10, maxBoth, false},
		} {
			cfg, c, b := tlstest.ServerConfig(), newFTPClient(t, version), new(Binding)
			if of.padding > 0 {
				cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
				c.cfg.Certificates = []tls.Certificate{tlstest.ClientCertificate(strings.Repeat("x", of.padding))}
			}
			c.passes(of.name+": control", b.Issue(cfg), false)
			if n := len(c.ticket()); n > of.most {
				t.Errorf("%s: a ticket of %d bytes", of.name, n)
			}
			c.passes(of.name+": data", b.Require(cfg), true)
			c.passes(of.name+": another control", new(Binding).Issue(cfg), of.resumable)
		}
	})
}

// FuzzTicket has tickets that someone has damaged or made up unwrapped. Invariants:
//
//   - no panic, and both parts lie within the ticket;
//   - what opens is a part that was made there, whole: for the Binding its own, for a
//     control connection the shared one;
//   - no other Binding opens anything.
func FuzzTicket(f *testing.F) {
	cfg, c, b := tlstest.ServerConfig(), newFTPClient(f, tls.VersionTLS13), new(Binding)
	c.passes("control", b.Issue(cfg), false)
	genuine := c.ticket()
	shared, own := cutTicket(genuine)
	other := new(Binding)
	newFTPClient(f, tls.VersionTLS13).passes("another control", other.Issue(cfg), false)

	f.Add([]byte{}, uint16(0), uint16(0), byte(0)) // the genuine one
	f.Add([]byte{}, uint16(0), uint16(0), byte(1))
	f.Add([]byte{}, uint16(0), uint16(len(ticketMark)), byte(0xff)) // the length
	f.Add([]byte{}, uint16(0), uint16(len(genuine)-1), byte(0x80))
	f.Add([]byte(ticketMark), uint16(len(ticketMark)), uint16(0), byte(0))
	f.Add([]byte(ticketMark+"\x00\x00"), uint16(len(genuine)-len(own)), uint16(0), byte(0)) // own alone
	f.Add([]byte{}, uint16(len(ticketMark)+2), uint16(0), byte(0))                          // no mark
	f.Add([]byte(ticketMark+"\xff\xff"), uint16(len(genuine)), uint16(0), byte(0))
	f.Fuzz(func(t *testing.T, head []byte, from, at uint16, mask byte) {
		ticket := append(bytes.Clone(head), genuine[min(int(from), len(genuine)):]...)
		if int(at) < len(ticket) {
			ticket[at] ^= mask
		}
		s, o := cutTicket(ticket)
		if len(s)+len(o) > len(ticket) || !bytes.Contains(ticket, s) || !bytes.HasSuffix(ticket, o) {
			t.Fatalf("cut into % x and % x", s, o)
		}
		if got := b.unwrap(cfg, ticket) != nil; got != bytes.Equal(o, own) {
			t.Errorf("the Binding opens it: %v", got)
		}
		session, err := other.Issue(cfg).UnwrapSession(ticket, tls.ConnectionState{})
		if got := session != nil; got != bytes.Equal(s, shared) || err != nil {
			t.Errorf("a control connection opens it: %v, %v", got, err)
		}
		if other.unwrap(cfg, ticket) != nil || new(Binding).unwrap(cfg, ticket) != nil {
			t.Error("another Binding opens it")
		}
	})
}

func TestTicketIsCutWhereItWasJoined(t *testing.T) {
	for _, n := range []int{0, 1, 255, 256, maxBoth - 1, maxBoth, maxBoth + 1} {
		shared, own := bytes.Repeat([]byte{1}, n), []byte{2}
		if n+1 > maxBoth {
			shared = nil
		}
		ticket := joinTicket(bytes.Repeat([]byte{1}, n), own)
		s, o := cutTicket(ticket)
		if !bytes.Equal(s, shared) || !bytes.Equal(o, own) {
			t.Errorf("of %d bytes: % .20x, % x", n, s, o)
		}
		if got := binary.BigEndian.Uint16(ticket[len(ticketMark):]); int(got) != len(shared) {
			t.Errorf("of %d bytes: a length of %d", n, got)
		}
	}
}
