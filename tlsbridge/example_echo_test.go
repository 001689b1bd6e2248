package tlsbridge_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/tlsbridge"
	"starttlsd/tlsbridge/tlstest"
)

// echoServer is a TLS echo server on plain gnet.
type echoServer struct {
	gnet.BuiltinEventEngine
	config *tls.Config
	engine chan gnet.Engine
}

type echoClient struct {
	link *tlsbridge.GnetLink
	tls  *tlsbridge.Conn
}

func (s *echoServer) OnBoot(engine gnet.Engine) gnet.Action {
	s.engine <- engine
	return gnet.None
}

func (s *echoServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	link := tlsbridge.NewLink(c)
	c.SetContext(&echoClient{link, tlsbridge.Server(link, s.config, tlsbridge.Options{
		Timeout: 10 * time.Second,
		Wake:    link.Wake,
	})})
	return nil, gnet.None
}

func (s *echoServer) OnTraffic(c gnet.Conn) gnet.Action {
	client := c.Context().(*echoClient)
	buf := make([]byte, 4096)
	for {
		n, err := client.tls.Read(buf)
		if n > 0 {
			_, err = client.tls.Write(buf[:n])
		}
		switch err {
		case nil:
		case tlsbridge.ErrWouldBlock:
			return gnet.None
		default: // the end of the session, a failed handshake, a peer that is gone
			_ = client.tls.CloseNotify()
			return gnet.Close
		}
	}
}

func (s *echoServer) OnClose(c gnet.Conn, _ error) gnet.Action {
	client := c.Context().(*echoClient)
	client.link.Closed()
	client.tls.Abort(net.ErrClosed)
	return gnet.None
}

func Example_echo() {
	server := &echoServer{config: tlstest.ServerConfig(), engine: make(chan gnet.Engine, 1)}
	address, stop := run(server, server.engine)
	defer stop()

	c, err := tls.Dial("tcp", address, tlstest.ClientConfig())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	fmt.Fprint(c, "hello, loop")
	reply := make([]byte, 11)
	n, err := c.Read(reply)
	fmt.Printf("%s %v\n", reply[:n], err)
	// Output: hello, loop <nil>
}
