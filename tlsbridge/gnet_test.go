package tlsbridge

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/logging"

	"starttlsd/tlsbridge/tlstest"
)

// gnetServer runs TLS on gnet and gives each connection to serve when there is input.
type gnetServer struct {
	gnet.BuiltinEventEngine
	cfg    *tls.Config
	engine chan gnet.Engine
	conns  chan *gnetConn // as they end
	serve  func(*gnetConn) error
}

type gnetConn struct {
	link *GnetLink
	tls  *Conn
	err  error
}

func (s *gnetServer) OnBoot(e gnet.Engine) gnet.Action { s.engine <- e; return gnet.None }

func (s *gnetServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	link := NewLink(c)
	c.SetContext(&gnetConn{link: link, tls: Server(link, s.cfg, Options{Wake: link.Wake, OnPanic: unexpectedPanic})})
	return nil, gnet.None
}

func (s *gnetServer) OnTraffic(c gnet.Conn) gnet.Action {
	client := c.Context().(*gnetConn)
	for client.err == nil {
		client.err = s.serve(client)
	}
	if client.err == ErrWouldBlock {
		client.err = nil
		return gnet.None
	}
	_ = client.tls.CloseNotify()
	return gnet.Close
}

func (s *gnetServer) OnClose(c gnet.Conn, _ error) gnet.Action {
	client := c.Context().(*gnetConn)
	client.link.Closed()
	client.tls.Abort(net.ErrClosed)
	s.conns <- client
	return gnet.None
}

func echoOnce(c *gnetConn) error {
	buf := make([]byte, 4096)
	n, err := c.tls.Read(buf)
	if n > 0 {
		_, err = c.tls.Write(buf[:n])
	}
	return err
}

func startGnet(t *testing.T, serve func(*gnetConn) error) (*gnetServer, string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	s := &gnetServer{cfg: tlstest.ServerConfig(), engine: make(chan gnet.Engine, 1), conns: make(chan *gnetConn, 10), serve: serve}
	ended := make(chan error, 1)
	go func() {
		ended <- gnet.Run(s, "tcp://"+address, gnet.WithNumEventLoop(1), gnet.WithLogLevel(logging.ErrorLevel))
	}()
	select {
	case err := <-ended:
		t.Fatal(err)
	case e := <-s.engine:
		t.Cleanup(func() {
			if err := errors.Join(e.Stop(context.Background()), <-ended); err != nil {
				t.Error(err)
			}
		})
	}
	return s, address
}

func TestGnetLinkCarriesASession(t *testing.T) {
	bothVersions(t, func(t *testing.T, version uint16) {
		s, address := startGnet(t, echoOnce)
		client, err := tls.Dial("tcp", address, clientConfig(version))
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			echo(t, client, strings.Repeat("0123456789", 20_000))
		}
		_ = client.CloseWrite()
		if n, err := client.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("read %d, %v; want close_notify", n, err)
		}
		_ = client.Close()
		ended := <-s.conns
		if ended.err != io.EOF {
			t.Error(ended.err)
		}
		if remote := ended.link.RemoteAddr(); remote.String() != client.LocalAddr().String() {
			t.Errorf("remote address %v", remote)
		}
	})
}

// After OnClose the descriptor number may be another client's.
func TestGnetLinkIsNotTouchedAfterItsEnd(t *testing.T) {
	s, address := startGnet(t, echoOnce)
	client, err := tls.Dial("tcp", address, tlstest.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	echo(t, client, "hello")
	_ = client.NetConn().(*net.TCPConn).SetLinger(0)
	_ = client.NetConn().Close()
	ended := <-s.conns
	dead := &GnetLink{} // any use of its gnet.Conn is a panic
	dead.closed.Store(ended.link.closed.Load())
	ended.tls.SetLink(dead)
	if n, err := dead.Read(make([]byte, 1)); n != 0 || err != net.ErrClosed {
		t.Errorf("read %d, %v", n, err)
	}
	if n, err := ended.tls.Write([]byte("x")); err == nil {
		t.Errorf("wrote %d", n)
	}
	if err := ended.tls.CloseNotify(); err == nil {
		t.Error("close_notify was sent")
	}
	dead.Wake()
}

func TestGnetLinkBoundsItsOutput(t *testing.T) {
	s, address := startGnet(t, func(c *gnetConn) error {
		n, err := c.tls.Read(make([]byte, 1))
		for n > 0 && err == nil {
			_, err = c.tls.Write(make([]byte, 16<<10))
		}
		return err
	})
	client, err := tls.Dial("tcp", address, tlstest.ClientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case ended := <-s.conns:
		if !errors.Is(ended.err, ErrOverflow) {
			t.Error(ended.err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a client that does not read was served for ever")
	}
}

func TestGnetConnectionThatEndsInTheHandshakeLeavesNothing(t *testing.T) {
	s, address := startGnet(t, echoOnce)
	for _, sent := range [][]byte{nil, clientHello13()[:9], clientHello13()} {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeAll(c, sent); err != nil {
			t.Fatal(err)
		}
		if len(sent) > 9 { // our flight is out: the goroutine is waiting
			_, _ = io.ReadFull(c, make([]byte, 100))
		}
		_ = c.Close()
		<-s.conns
	}
	eventually(t, "all permits back", func() bool { return DefaultSlots.Stats().SlotCounts == SlotCounts{} })
}
