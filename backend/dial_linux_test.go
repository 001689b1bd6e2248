package backend

import (
	"context"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"
)

// deaf is an address whose queue of connections is full: it does not answer.
func deaf(t *testing.T, ip string) netip.AddrPort {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	addr := netip.MustParseAddr(ip)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: addr.As4()}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(addr, uint16(name.(*syscall.SockaddrInet4).Port))
	for range 10 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			if os.IsTimeout(err) {
				return at
			}
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("this system answers however full the queue is")
	return at
}

func TestSilentAddressHasItsShareOfTheTime(t *testing.T) {
	silent := deaf(t, "127.0.0.2")
	for range 20 { // its port has to be free at another address too
		ln, err := net.Listen("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), silent.Port()).String())
		if err == nil {
			_ = ln.Close()
			break
		}
		silent = deaf(t, "127.0.0.2")
	}
	at := serve(t, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), silent.Port()).String(), untilEnd("220 hello\r\n"))
	s := newServer(t, Options{
		Address: Address{Plain, "mail.internal", at.Port()}, Resolver: names{"127.0.0.2", "127.0.0.1"}, Timeout: 2 * time.Second,
	})
	began := time.Now()
	dial(t, s, readGreeting)
	if took := time.Since(began); took < 900*time.Millisecond || took > 1900*time.Millisecond {
		t.Errorf("it took %s of %s", took, s.opts.Timeout)
	}
}

func TestCancellingEndsTheConnecting(t *testing.T) {
	s := newServer(t, Options{Address: address(Plain, deaf(t, "127.0.0.2")), Timeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	began := time.Now()
	c, err := s.Dial(ctx, readGreeting, client())
	if c != nil || err == nil || ctx.Err() == nil {
		t.Errorf("%v, %v", c, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestNeitherKeepAliveNorDelay(t *testing.T) {
	at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
	c := dial(t, newServer(t, Options{Address: address(Plain, at)}), readGreeting)
	raw, err := c.TCP.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		alive, err1 := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE)
		noDelay, err2 := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
		if alive != 0 || noDelay == 0 || err1 != nil || err2 != nil {
			t.Errorf("keep-alive %d, no delay %d, %v, %v", alive, noDelay, err1, err2)
		}
	})
	if err != nil {
		t.Error(err)
	}
}
