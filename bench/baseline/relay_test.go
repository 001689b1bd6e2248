package baseline

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"starttlsd/bench/load"
	"starttlsd/bench/stub"
	"starttlsd/tlsbridge/tlstest"
)

const size = 100_000

// listenRelay is one in front of a stub, until the test is over: by then all of its
// goroutines have ended.
func listenRelay(t *testing.T, implicit bool) (addr string) {
	t.Helper()
	behind, err := stub.New(size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(behind.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{TLS: tlstest.ServerConfig(), Implicit: implicit, Backend: behind.Addr(), Timeout: time.Minute}
	served := make(chan error)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		_ = ln.Close()
		s.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func TestRelayCarriesMessages(t *testing.T) {
	for _, scheme := range []string{"imap", "imaps"} {
		target, err := load.ParseTarget(scheme + "://" + listenRelay(t, scheme == "imaps"))
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range []load.Options{
			{Mode: load.Transfer, Operations: 20, User: "u", Password: "p"},
			{Mode: load.Transfer, Operations: 20, User: "u", Password: "p", Upload: true},
			{Mode: load.Hold, Quiet: true, Duration: 1, User: "u", Password: "p"},
			{Mode: load.Upgrade, Operations: 8},
		} {
			o.Target, o.TLS, o.Connections, o.Timeout = target, tlstest.ClientConfig(), 4, time.Minute
			if o.Mode == load.Transfer {
				o.Size = size
			}
			res, err := load.Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if res.Failed() > 0 || res.Done == 0 {
				t.Errorf("%s, %s: %d done, %v", scheme, o.Mode, res.Done, res.Examples)
			}
			if o.Mode == load.Transfer && res.Bytes != 20*size {
				t.Errorf("%s, upload %v: %d bytes, want %d", scheme, o.Upload, res.Bytes, 20*size)
			}
		}
	}
}

func TestRelayTakesNoCommandInClear(t *testing.T) {
	for _, says := range []string{"a LOGIN u p\r\n", "a STARTTLS\r\na LOGIN u p\r\n"} {
		nc, err := net.Dial("tcp", listenRelay(t, false))
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(time.Minute))
		if _, err := io.WriteString(nc, says); err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(nc); string(got) != "* OK ready\r\n" {
			t.Errorf("%q: %q", says, got)
		}
	}
}

func TestRelayEndsWithItsBackend(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if nc, err := ln.Accept(); err == nil {
			_, _ = io.WriteString(nc, "* OK\r\n* BYE\r\n")
			_ = nc.Close()
		}
	}()
	s := &Server{TLS: tlstest.ServerConfig(), Implicit: true, Backend: ln.Addr().String()}
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(front) }()
	defer s.Close()
	defer front.Close()
	tc, err := tls.Dial("tcp", front.Addr().String(), tlstest.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer tc.Close()
	_ = tc.SetDeadline(time.Now().Add(time.Minute))
	_, _ = io.WriteString(tc, "a NOOP\r\n")
	if got, err := io.ReadAll(tc); string(got) != "* OK ready\r\n* BYE\r\n" {
		t.Errorf("%q, %v", got, err)
	}
}
