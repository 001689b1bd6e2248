package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

func TestIdleClientsAreToldGoodbyeWhenTheDrainTimeIsOver(t *testing.T) {
	s := start(t)
	c, tc, body := s.dial(), s.dialTLS(), s.dialTLS()
	body.send("SINK 100\r\nhalf")
	eventually(t, "the body's lend", func() bool { return s.eng.Stats().Lent == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- s.eng.Shutdown(ctx) }()
	eventually(t, "the listener closed", func() bool {
		nc, err := net.Dial("tcp", s.addr)
		if err == nil {
			nc.Close()
		}
		return err != nil
	})
	c.send("ECHO goes on\r\nSTARTTLS\r\n")
	c.expect("+goes on", "-no tls")
	for _, c := range []*client{c, tc, body} {
		c.expect("-draining")
		c.ended()
		c.Close()
	}
	if err := <-done; err != context.DeadlineExceeded {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestShutdownReturnsAtOnceWhenNobodyIsLeft(t *testing.T) {
	s := start(t)
	c := s.dial()
	go func() {
		time.Sleep(50 * time.Millisecond)
		c.send("QUIT\r\n")
		_, _ = io.ReadAll(c.r)
		c.Close()
	}()
	if err := s.eng.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestCloseCutsADrainShort(t *testing.T) {
	s := start(t)
	c, body := s.dial(), s.dialTLS()
	body.send("SINK 100\r\nhalf")
	silent := s.dial()
	silent.send("STARTTLS\r\n")
	silent.expect("+go")
	done := make(chan error, 1)
	go func() { done <- s.eng.Shutdown(context.Background()) }()
	time.Sleep(50 * time.Millisecond)
	if err := s.eng.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	<-done
	for _, c := range []*client{c, body, silent} {
		_, _ = io.ReadAll(c.r) // closed one way or the other
	}
}

func TestStopDuringAnAcceptStormReturnsAndLeaksNothing(t *testing.T) {
	for round := range 5 {
		before := descriptors()
		s := start(t)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 16 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					select {
					case <-stop:
						return
					default:
					}
					nc, err := net.Dial("tcp", s.addr)
					if err != nil {
						return
					}
					_, _ = io.WriteString(nc, "ECHO x\r\nLEND\r\nSTARTTLS\r\n")
					nc.Close()
				}
			}()
		}
		time.Sleep(time.Duration(20+30*round) * time.Millisecond)
		s.stop()
		close(stop)
		wg.Wait()
		eventually(t, "descriptors back", func() bool { return descriptors() <= before })
	}
}

func TestTooManyConnectionsAreRefusedInWordsAndServedLater(t *testing.T) {
	s := start(t, withAdmission(Admission{MaxConnections: 3}))
	in := []*client{s.dial(), s.dial(), s.dialTLS()}
	for range 5 {
		c := s.dialSilent()
		c.expect("-busy")
		c.ended()
	}
	in[0].send("QUIT\r\n")
	in[0].expect("+bye")
	in[0].ended()
	in[0].Close()
	eventually(t, "one gone", func() bool { return s.eng.Stats().Open == 2 })
	s.dial()
}

func TestLimitsPerClient(t *testing.T) {
	s := start(t, withAdmission(Admission{LimitLoopback: true, PerClient: 2, RatePerClient: 6}))
	a, b := s.dialFrom("127.0.0.2"), s.dialFrom("127.0.0.2")
	a.expect("+hello")
	b.expect("+hello")
	for range 4 {
		c := s.dialFrom("127.0.0.2")
		c.expect("-busy")
		c.ended()
	}
	s.dialFrom("127.0.0.3").expect("+hello") // another client
	a.Close()
	b.Close()
	eventually(t, "both gone", func() bool { return s.eng.Stats().Open == 1 })
	c := s.dialFrom("127.0.0.2") // the seventh within a minute
	c.expect("-busy")
	st := s.eng.Stats()
	if st.EndedBy(ReasonClientConnections) != 4 || st.EndedBy(ReasonClientRate) != 1 {
		t.Errorf("by connections %d, by rate %d", st.EndedBy(ReasonClientConnections), st.EndedBy(ReasonClientRate))
	}
}

func TestSilenceAndTricklingEndAtTheCommandDeadline(t *testing.T) {
	s := start(t, withLimits(Limits{Command: 600 * time.Millisecond}))
	silent, drip := s.dial(), s.dial()
	go func() {
		for range 200 {
			if _, err := io.WriteString(drip.Conn, "E"); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for _, c := range []*client{silent, drip} {
		c.expect("-timed out")
		c.Close()
	}
}

// 200 handshakes that stall, some of them half-way, do not keep a loop from
// serving others.
func TestStalledHandshakesDoNotHoldUpOthers(t *testing.T) {
	s := start(t)
	for i := range 200 {
		c := s.dial()
		c.send("STARTTLS\r\n")
		c.expect("+go")
		c.send("\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[:i%10])
	}
	live := s.dial()
	_ = live.SetDeadline(time.Now().Add(5 * time.Second))
	for i := range 2000 {
		live.send(fmt.Sprintf("ECHO %d\r\n", i))
		live.expect(fmt.Sprintf("+%d", i))
	}
}
