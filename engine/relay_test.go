package engine

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

func TestRelayedDialogue(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		b := backend(t, secureBackend, answer)
		s := start(t, relayTo(b))
		c := dial(s)
		c.send("one\r\ntwo\r\nBODY 100000\r\n" + strings.Repeat("x", 100000) + "three\r\n")
		c.expect("+one", "+two", "+got 100000", "+three")
		eventually(t, "the pair back on its loop", func() bool { return s.eng.Stats().Lent == 0 })
		if st := s.eng.Stats(); st.Relayed != 1 || st.Dialed != 1 {
			t.Errorf("%+v", st)
		}
		c.send("four\r\n")
		c.expect("+four")
		c.send("QUIT\r\n")
		c.expect("+QUIT")
		c.ended()
		eventually(t, "the end", func() bool { return s.eng.Stats().Relayed == 0 })
	})
}

func TestClientThatNeverNeedsItsBackendCostsNone(t *testing.T) {
	b := backend(t, false, answer)
	s := start(t, relayTo(b))
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		c.send("QUIT\r\n")
		c.expect("+bye")
		c.ended()
	}
	if n := b.conns.Load(); n != 0 {
		t.Errorf("%d connections to the backend", n)
	}
}

func TestUnreachableBackendIsSaidInWords(t *testing.T) {
	b := backend(t, false, answer)
	b.addr = "127.0.0.1:1"
	s := start(t, relayTo(b))
	for _, c := range []*client{s.dial(), s.dialTLS()} {
		c.send("x\r\n")
		c.expect("-no backend")
		c.ended()
		c.Close()
	}
	s.saw(ReasonNoBackend, 2)
}

func TestBackendThatEndsOrResetsIsSaidInWords(t *testing.T) {
	for _, verb := range []string{"DROP", "RESET"} {
		t.Run(verb, func(t *testing.T) {
			everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
				s := start(t, relayTo(backend(t, secureBackend, answer)))
				c := dial(s)
				c.send("x\r\n")
				c.expect("+x")
				c.send(verb + "\r\n")
				c.expect("-no backend")
				c.ended()
				c.Close()
				s.saw(ReasonBackendLost, 1)
			})
		})
	}
}

func TestBackendThatDoesNotAnswerIsGivenUp(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		s := start(t, relayTo(backend(t, secureBackend, answer)), withLimits(Limits{Reply: 300 * time.Millisecond}))
		c := dial(s)
		c.send("x\r\nSILENCE\r\n")
		c.expect("+x", "-no backend")
		c.ended()
		c.Close()
		s.saw(ReasonBackendTimeout, 1)
	})
}

// saw waits until n connections have ended for the reason.
func (s *server) saw(why Reason, n uint64) {
	s.t.Helper()
	eventually(s.t, why.String(), func() bool { st := s.eng.Stats(); return st.EndedBy(why) == n })
}

func TestIdleRelayedSessions(t *testing.T) {
	s := start(t, relayTo(backend(t, false, answer)),
		withLimits(Limits{Command: 300 * time.Millisecond, Idle: 600 * time.Millisecond}))
	framed, opaque := s.dialTLS(), s.dialTLS()
	framed.send("x\r\n")
	framed.expect("+x")
	opaque.send("OPAQUE\r\n")
	opaque.expect("+OPAQUE")
	framed.expect("-timed out")
	framed.ended()
	opaque.send("still here\r\n")
	opaque.expect("still here")
	opaque.ended() // without a word
	framed.Close()
	opaque.Close()
	s.saw(ReasonCommandTimeout, 1)
	s.saw(ReasonIdle, 1)
}

// STARTTLS while there is a backend: what was said in clear is over, and the session
// under TLS has a backend of its own.
func TestUpgradeLeavesTheBackendOfThePlaintextSession(t *testing.T) {
	b := backend(t, false, answer)
	s := start(t, relayTo(b))
	c := s.dial()
	c.send("in clear\r\n")
	c.expect("+in clear")
	c.send("STARTTLS\r\n")
	c.expect("+go")
	eventually(t, "the backend left", func() bool { return b.open.Load() == 0 })
	c.handshake(tlstest.ClientConfig())
	c.send("secured\r\n")
	c.expect("+secured")
	if n := b.conns.Load(); n != 2 {
		t.Errorf("%d connections to the backend, want 2", n)
	}
}

func TestInjectionWhileThereIsABackend(t *testing.T) {
	b := backend(t, false, answer)
	s := start(t, relayTo(b))
	c := s.dial()
	c.send("in clear\r\nSTARTTLS\r\nevil\r\n")
	c.expect("+in clear", "-injected")
	c.ended()
	if n := s.eng.Stats().Injected; n != 1 {
		t.Errorf("%d injections counted, want 1", n)
	}
}

// The client ends its direction and still gets all that it is owed.
func TestHalfCloseIsCarriedAcross(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		late := func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			_, _ = r.ReadString('\n')
			_, _ = io.WriteString(nc, "+OPAQUE\r\n")
			got, err := io.ReadAll(r)
			time.Sleep(50 * time.Millisecond) // the pair may be on its loop again, or on its way
			_, _ = fmt.Fprintf(nc, "got %d %v\r\n", len(got), err)
		}
		s := start(t, relayTo(backend(t, secureBackend, late)))
		for range 20 {
			c := dial(s)
			c.send("OPAQUE\r\n")
			c.expect("+OPAQUE")
			c.send(strings.Repeat("x", 5000))
			closeWrite(t, c.Conn)
			c.expect("got 5000 <nil>")
			c.ended()
		}
	})
}

// And so does a backend.
func TestHalfCloseOfTheBackend(t *testing.T) {
	everyKind(t, func(t *testing.T, secureBackend bool, dial func(*server) *client) {
		got := make(chan string, 1)
		early := func(nc net.Conn, r *bufio.Reader) {
			_, _ = r.ReadString('\n') // FROM
			_, _ = r.ReadString('\n')
			_, _ = io.WriteString(nc, "+OPAQUE\r\nlast words\r\n")
			if cw, ok := nc.(interface{ CloseWrite() error }); ok {
				_ = cw.CloseWrite()
			}
			all, err := io.ReadAll(r)
			got <- fmt.Sprint(len(all), err)
		}
		s := start(t, relayTo(backend(t, secureBackend, early)))
		c := dial(s)
		c.send("OPAQUE\r\n")
		c.expect("+OPAQUE", "last words")
		c.ended()
		c.send(strings.Repeat("x", 5000))
		closeWrite(t, c.Conn)
		if all := <-got; all != "5000 <nil>" {
			t.Errorf("the backend got %s", all)
		}
	})
}

func closeWrite(t *testing.T, nc net.Conn) {
	t.Helper()
	if err := nc.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

func TestDrainOfRelayedSessions(t *testing.T) {
	s := start(t, relayTo(backend(t, false, answer)))
	idle, owed, opaque := s.dialTLS(), s.dialTLS(), s.dialTLS()
	for _, c := range []*client{idle, owed} {
		c.send("x\r\n")
		c.expect("+x")
	}
	opaque.send("OPAQUE\r\n")
	opaque.expect("+OPAQUE")
	owed.send("BODY 1000\r\nhalf of it")
	eventually(t, "all on the loop", func() bool { st := s.eng.Stats(); return st.Relayed == 3 && st.Lent == 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	go func() { _ = s.eng.Shutdown(ctx) }()
	idle.expect("-draining")
	for _, c := range []*client{idle, owed, opaque} {
		c.ended()
		c.Close()
	}
}
