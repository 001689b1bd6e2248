package backend

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"starttlsd/codec"
	"starttlsd/tlsbridge/tlstest"
)

// names is a Resolver of one name.
type names []string

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host != "mail.internal" || n == nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var addrs []netip.Addr
	for _, a := range n {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, nil
}

// greet accepts connections on 127.0.0.1, and nowhere else.
func greet(t *testing.T) Address {
	at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
	return Address{Plain, "mail.internal", at.Port()}
}

func TestAddressThatRefusesIsFollowedByTheNextAtOnce(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.2", "::ffff:127.0.0.3", "127.0.0.1"}})
	began := time.Now()
	c := dial(t, s, readGreeting)
	if at := c.TCP.RemoteAddr().(*net.TCPAddr); at.IP.String() != "127.0.0.1" {
		t.Errorf("connected to %s", at)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestFirstAddressThatAnswersIsUsed(t *testing.T) {
	at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
	address := Address{Plain, "mail.internal", at.Port()}
	c := dial(t, newServer(t, Options{Address: address, Resolver: names{"127.0.0.1", "127.0.0.2"}}), readGreeting)
	if got := c.TCP.RemoteAddr().String(); got != at.String() {
		t.Errorf("connected to %s", got)
	}
}

func TestNameIsResolvedAnewForEachDial(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.2"}})
	failure(t, s, readGreeting, "connection refused", "is the server running")
	s.opts.Resolver = names{"127.0.0.1"}
	dial(t, s, readGreeting)
}

func TestErrorNamesEveryAddress(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.2", "127.0.0.3"}})
	err := failure(t, s, readGreeting, "127.0.0.2", "127.0.0.3")
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v wraps no refusal", err)
	}
}

func TestNameWithoutAddress(t *testing.T) {
	for _, r := range []names{nil, {}} {
		failure(t, newServer(t, Options{Address: greet(t), Resolver: r}), readGreeting, "looking up the name")
	}
}

// silent are servers that keep a dial waiting at each of its steps.
func silent(t *testing.T) map[string]*Server {
	mute := func(scheme Scheme) Address { return address(scheme, serve(t, "127.0.0.1:0", untilEnd(""))) }
	goAhead := address(StartTLS, serve(t, "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		r := bufio.NewReader(c)
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(c, "220 go\r") // the rest does not come
		_, _ = io.Copy(io.Discard, r)
	}))
	handshake := address(StartTLS, serve(t, "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		r := bufio.NewReader(c)
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(c, "220 go\r\n")
		_, _ = io.Copy(io.Discard, r)
	}))
	drip := address(Plain, serve(t, "127.0.0.1:0", func(c net.Conn) {
		for err := error(nil); err == nil; time.Sleep(5 * time.Millisecond) {
			_, err = io.WriteString(c, "2")
		}
	}))
	servers := map[string]*Server{"lookup": newServer(t, Options{
		Address: Address{Plain, "mail.internal", 25}, Resolver: neverFound{},
	})}
	for name, a := range map[string]Address{
		"greeting": mute(Plain), "handshake": mute(Implicit), "go-ahead": goAhead, "handshake after the go-ahead": handshake,
		"an octet at a time": drip,
	} {
		servers[name] = newServer(t, Options{Address: a})
	}
	return servers
}

type neverFound struct{}

func (neverFound) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestSilenceEndsAtTheTimeout(t *testing.T) {
	for name, s := range silent(t) {
		t.Run(name, func(t *testing.T) {
			s.opts.Timeout = 100 * time.Millisecond
			began := time.Now()
			err := failure(t, s, starttls, "deadline exceeded", "backend_options.timeout")
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v is no deadline", err)
			}
			if took := time.Since(began); took < s.opts.Timeout || took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestCancellingEndsEveryStepAtOnce(t *testing.T) {
	for name, s := range silent(t) {
		t.Run(name, func(t *testing.T) {
			s.opts.Timeout = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			began := time.Now()
			c, err := s.Dial(ctx, starttls, client())
			if c != nil || !errors.Is(err, context.Canceled) {
				t.Errorf("%v, %v", c, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

func TestCancelledBeforeItBegins(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.1"}})
	if c, err := s.Dial(ctx, readGreeting, client()); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, %v", c, err)
	}
}

// A cancellation may come when all is done: there is then a connection or an
// error, and never one that fails later.
func TestCancellingAtTheEndLeavesNoDeadline(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.1"}})
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		sess := introducer{introduce: func(u codec.Upstream) error {
			defer func() {
				go func() {
					time.Sleep(time.Duration(i) * time.Microsecond)
					cancel()
				}()
			}()
			return readGreeting.introduce(u)
		}}
		c, err := s.Dial(ctx, sess, client())
		<-ctx.Done()
		if err != nil {
			continue
		}
		if err := c.TCP.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(100 * time.Microsecond) // for what may be under way
		if _, err := c.TCP.Write([]byte("x")); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		_ = c.TCP.Close()
	}
}

func TestDialsAtATimeAreBounded(t *testing.T) {
	var mu sync.Mutex
	now, peak := 0, 0
	slow := introducer{introduce: func(u codec.Upstream) error {
		mu.Lock()
		now++
		peak = max(peak, now)
		mu.Unlock()
		time.Sleep(10 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		return readGreeting.introduce(u)
	}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().(*net.TCPAddr).AddrPort()
	s := newServer(t, Options{Address: address(Plain, at), Concurrency: 3})
	var dials sync.WaitGroup
	for range 20 {
		dials.Go(func() {
			c, err := s.Dial(t.Context(), slow, client())
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.TCP.Close()
		})
	}
	for range 20 {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "220 hello\r\n")
		defer c.Close()
	}
	dials.Wait()
	if peak != 3 {
		t.Errorf("%d at a time", peak)
	}
}

func TestWaitingForAPlaceCountsInTheTime(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.1"}, Concurrency: 1, Timeout: 100 * time.Millisecond})
	if !s.places.TryAcquire(1) {
		t.Fatal("no place")
	}
	failure(t, s, readGreeting, "waiting for one of 1 other dials to end", "deadline exceeded")
	s.places.Release(1)
	dial(t, s, readGreeting)
}

func TestPlaceIsGivenBackWhateverHappens(t *testing.T) {
	s := newServer(t, Options{Address: greet(t), Resolver: names{"127.0.0.1"}, Concurrency: 1})
	panics := introducer{introduce: func(codec.Upstream) error { panic("a fault in the session") }}
	fails := introducer{introduce: func(codec.Upstream) error { return errors.New("no") }}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Dial(t.Context(), panics, client())
	}()
	failure(t, s, fails, ": no")
	s.opts.Resolver = names{"127.0.0.2"}
	failure(t, s, readGreeting, "connection refused")
	s.opts.Resolver = names{"127.0.0.1"}
	dial(t, s, readGreeting)
}

func TestLinesOfTheDialogue(t *testing.T) {
	long := strings.Repeat("a", maxLine)
	for name, test := range map[string]struct {
		sent string
		want []string // then the error
		err  error
	}{
		"ends":       {"a\r\nb\n\r\n\n", []string{"a", "b", "", ""}, errClosed},
		"octets":     {"a\x00b\r\n\r\r\n", []string{"a\x00b", "\r"}, errClosed},
		"unfinished": {"a\r\nb", []string{"a"}, errClosed},
		"longest":    {long + "\r\n" + long + "\n", []string{long, long}, errClosed},
		"too long":   {long + "a\n", nil, errLineTooLong},
		"endless":    {long + long, nil, errLineTooLong},
	} {
		t.Run(name, func(t *testing.T) {
			at := serve(t, "127.0.0.1:0", func(c net.Conn) { _, _ = io.WriteString(c, test.sent) })
			sess := introducer{introduce: func(u codec.Upstream) error {
				for _, want := range test.want {
					if line, err := u.ReadLine(); string(line) != want || err != nil {
						t.Errorf("read %.100q, %v; want %.100q", line, err, want)
					}
				}
				_, err := u.ReadLine()
				return err
			}}
			_, err := newServer(t, Options{Address: address(Plain, at)}).Dial(t.Context(), sess, client())
			if !errors.Is(err, test.err) {
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestReadGoesOnBehindTheLine(t *testing.T) {
	at := serve(t, "127.0.0.1:0", func(c net.Conn) {
		s := tls.Server(c, tlstest.ServerConfig())
		_, _ = io.WriteString(s, "* {5}\r\nabc")
		_, _ = io.WriteString(s, "de)\r\n")
		_, _ = io.Copy(io.Discard, s)
	})
	sess := introducer{introduce: func(u codec.Upstream) error {
		if line, err := u.ReadLine(); string(line) != "* {5}" || err != nil {
			t.Errorf("read %q, %v", line, err)
		}
		literal := make([]byte, 5)
		if _, err := io.ReadFull(u, literal); string(literal) != "abcde" || err != nil {
			t.Errorf("read %q, %v", literal, err)
		}
		line, err := u.ReadLine()
		if string(line) != ")" {
			t.Errorf("read %q", line)
		}
		return err
	}}
	dial(t, newServer(t, Options{Address: address(Implicit, at)}), sess)
}
