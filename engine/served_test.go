package engine

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// another returns a listener that chats under a name.
func another(t *testing.T, name string) Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Listener{Listener: ln, Name: name, TLS: tlstest.ServerConfig(), NewSession: newChat}
}

func TestListenersComeChangeAndGoUnderTheirSessions(t *testing.T) {
	s := start(t)
	early := s.dial()
	second, err := s.eng.Serve(another(t, "second"))
	if err != nil {
		t.Fatal(err)
	}
	s2 := &server{t: t, eng: s.eng, addr: second.Listener().Addr().String()}
	old := s2.dialTLS()

	changed := another(t, "changed")
	_ = changed.Listener.Close() // Update does not look at it
	changed.TLS = nil
	second.Update(changed)
	young := s2.dial()
	young.send("STARTTLS\r\n")
	young.expect("-no tls")
	old.send("ECHO as it began\r\n")
	old.expect("+as it began")

	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", s2.addr); err == nil {
		t.Error("a closed listener accepts")
	}
	for _, c := range []*client{early, old, young} {
		c.send("ECHO on\r\n")
		c.expect("+on")
	}
	want := map[string]Counts{"chat": {Accepted: 1, Open: 1, Plain: 1}, "second": {Accepted: 1, Open: 1, Secure: 1}, "changed": {Accepted: 1, Open: 1, Plain: 1}}
	for _, l := range s.eng.Listeners() {
		w := want[l.Name]
		if l.Accepted != w.Accepted || l.Open != w.Open || l.Plain != w.Plain || l.Secure != w.Secure || l.Upgrading != 0 {
			t.Errorf("%s: %+v", l.Name, l.Counts)
		}
		delete(want, l.Name)
	}
	if len(want) > 0 {
		t.Errorf("not counted: %v", want)
	}
	if n := len(s.eng.Served()); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

func TestListenersOwnAdmissionCountsForItself(t *testing.T) {
	s := start(t, withAdmission(Admission{PerClient: 3, LimitLoopback: true}))
	l := another(t, "own")
	l.Admission = &Admission{PerClient: 1, LimitLoopback: true, MaxConnections: 5}
	own, err := s.eng.Serve(l)
	if err != nil {
		t.Fatal(err)
	}
	s2 := &server{t: t, eng: s.eng, addr: own.Listener().Addr().String()}
	first := s2.dial()
	refusedBusy := func(s *server) {
		t.Helper()
		c := s.dialSilent()
		c.expect("-busy")
		c.ended()
	}
	refusedBusy(s2)
	for range 3 { // the other listener's places are not taken by those
		s.dial()
	}
	refusedBusy(s)

	l.Admission = &Admission{PerClient: 2, LimitLoopback: true}
	own.Update(l)
	s2.dial()
	refusedBusy(s2)
	first.send("QUIT\r\n")
	first.expect("+bye")
	first.ended()
	eventually(t, "a place", func() bool { return s.eng.Stats().Open == 4 })
	s2.dial()

	for _, r := range s.eng.Refusals() {
		want := map[string]uint64{"own": 2, "chat": 1}[r.Listener]
		if r.Count != want || r.Reason != "client_connections" || r.Client.String() != "127.0.0.1/32" {
			t.Errorf("%+v, want %d", r, want)
		}
	}
	if n := len(s.eng.Refusals()); n != 2 {
		t.Errorf("%d refusals are told", n)
	}
}

func TestLimitsOfAllChangeWhileServing(t *testing.T) {
	s := start(t, withAdmission(Admission{MaxConnections: 1}))
	s.dial()
	c := s.dialSilent()
	c.expect("-busy")
	s.eng.Admit(Admission{MaxConnections: 2}, false)
	s.dial()
	if st := s.eng.Stats(); st.MaxConnections != 2 || st.EndedBy(ReasonMaxConnections) != 1 || st.TurnedAway() != 1 {
		t.Errorf("%+v", st)
	}
}

// TestRetiringSessionsStillUpgrade: where another process has the listeners, no
// client sees that this one ends.
func TestRetiringSessionsStillUpgrade(t *testing.T) {
	s := start(t)
	c := s.dial()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.eng.Retire(ctx) }()
	eventually(t, "the listener closed", func() bool {
		nc, err := net.Dial("tcp", s.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	c.send("STARTTLS\r\n")
	c.expect("+go")
	c.handshake(tlstest.ClientConfig())
	c.send("ECHO secure\r\nQUIT\r\n")
	c.expect("+secure", "+bye")
	c.ended()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestStressShortensDeadlinesAndEnds(t *testing.T) {
	const most = 10
	s := start(t, withAdmission(Admission{MaxConnections: most}),
		withLimits(Limits{Command: time.Minute, Stress: 300 * time.Millisecond}))
	var idle []*client
	for range most - 1 {
		idle = append(idle, s.dial())
	}
	eventually(t, "stress", func() bool { return s.eng.Stats().Stressed })
	for _, c := range idle { // they were there before it began
		c.expect("-timed out")
		c.ended()
	}
	eventually(t, "the end of stress", func() bool { return !s.eng.Stats().Stressed })
	c := s.dial()
	time.Sleep(600 * time.Millisecond)
	c.send("ECHO patient again\r\n")
	c.expect("+patient again")
	if st := s.eng.Stats(); st.Stresses != 1 || st.EndedBy(ReasonCommandTimeout) != most-1 {
		t.Errorf("%d times, %d ended", st.Stresses, st.EndedBy(ReasonCommandTimeout))
	}
	for _, line := range []string{"stress begins, deadlines are shortened", "stress is over, deadlines are as configured"} {
		if !strings.Contains(s.log.String(), line) {
			t.Errorf("%q is not in the log", line)
		}
	}
}

func TestCountsOfAnUpgradeTellWhatItCameTo(t *testing.T) {
	s := start(t)
	cfg := tlstest.ClientConfig()
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for range 2 {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		c.handshake(cfg)
		c.send("ECHO a\r\nQUIT\r\n")
		c.expect("+a", "+bye")
		c.ended()
	}
	bad := s.dial()
	bad.send("STARTTLS\r\n")
	bad.expect("+go")
	bad.send("GET / HTTP/1.0\r\n\r\n")
	eventually(t, "the end of all", func() bool { return s.eng.Stats().Open == 0 })
	l := s.eng.Listeners()[0]
	if l.Upgrades != 2 || l.Resumed != 1 || l.Failed != 1 || l.Commands != 2 || l.Handshakes.Count != 2 || l.Handshakes.Sum <= 0 {
		t.Errorf("%+v, %+v", l.Counts, l.Handshakes)
	}
	sum := uint64(0)
	for n, count := range l.Negotiated {
		if n.Version != tls.VersionTLS13 || n.Group != tls.X25519MLKEM768 {
			t.Errorf("%+v", n)
		}
		sum += count
	}
	if last := l.Handshakes.Below[len(l.Handshakes.Below)-1]; sum != 2 || last != 2 {
		t.Errorf("%d sessions, %d in the histogram", sum, last)
	}
}
