package tlsbridge_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"net/textproto"
	"strings"
	"time"

	"github.com/panjf2000/gnet/v2"

	"starttlsd/tlsbridge"
	"starttlsd/tlsbridge/tlstest"
)

// upgradeServer speaks a tiny line protocol with STARTTLS on plain gnet.
type upgradeServer struct {
	gnet.BuiltinEventEngine
	config *tls.Config
	slots  *tlsbridge.Slots
	engine chan gnet.Engine
}

type upgradeClient struct {
	link *tlsbridge.GnetLink
	tls  *tlsbridge.Conn // nil in plaintext
	in   []byte
}

func (s *upgradeServer) OnBoot(engine gnet.Engine) gnet.Action {
	s.engine <- engine
	return gnet.None
}

func (s *upgradeServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(&upgradeClient{link: tlsbridge.NewLink(c)})
	return nil, gnet.None
}

func (s *upgradeServer) OnTraffic(c gnet.Conn) gnet.Action {
	client := c.Context().(*upgradeClient)
	buf := make([]byte, 4096)
	for {
		n, err := client.read(buf)
		if client.in = append(client.in, buf[:n]...); len(client.in) > 4096 {
			return gnet.Close
		}
		for err == nil {
			line, rest, whole := strings.Cut(string(client.in), "\r\n")
			if !whole {
				break
			}
			client.in = []byte(rest)
			err = s.command(client, line)
		}
		switch err {
		case nil:
		case tlsbridge.ErrWouldBlock:
			return gnet.None
		default:
			return gnet.Close
		}
	}
}

func (s *upgradeServer) command(client *upgradeClient, line string) error {
	switch {
	case line != "STARTTLS":
		return client.reply("250 " + line)
	case client.tls != nil:
		return client.reply("503 already secured")
	case len(client.in) > 0: // CVE-2011-0411: a command smuggled in ahead of TLS
		_ = client.reply("554 no pipelining behind STARTTLS")
		return net.ErrClosed
	}
	// All that can fail on our side comes before the go-ahead.
	permit, err := s.slots.Reserve(netip.MustParsePrefix("127.0.0.1/32"))
	if err != nil {
		return client.reply("454 try later")
	}
	if err := client.reply("220 go ahead"); err != nil {
		permit.Release()
		return err
	}
	client.tls = tlsbridge.Server(client.link, s.config, tlsbridge.Options{
		Permit: permit, Timeout: 10 * time.Second, Wake: client.link.Wake,
	})
	return nil
}

func (c *upgradeClient) read(p []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(p)
	}
	return c.link.Read(p)
}

func (c *upgradeClient) reply(line string) (err error) {
	if c.tls != nil {
		_, err = c.tls.Write([]byte(line + "\r\n"))
	} else {
		_, err = c.link.Write([]byte(line + "\r\n"))
	}
	return err
}

func (s *upgradeServer) OnClose(c gnet.Conn, _ error) gnet.Action {
	client := c.Context().(*upgradeClient)
	client.link.Closed()
	if client.tls != nil {
		client.tls.Abort(net.ErrClosed)
	}
	return gnet.None
}

func Example_starttls() {
	server := &upgradeServer{
		config: tlstest.ServerConfig(),
		slots:  tlsbridge.NewSlots(tlsbridge.SlotLimits{}),
		engine: make(chan gnet.Engine, 1),
	}
	address, stop := run(server, server.engine)
	defer stop()

	c, err := net.Dial("tcp", address)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = c.Close() }()
	say := func(text *textproto.Conn, line string) {
		_ = text.PrintfLine("%s", line)
		reply, err := text.ReadLine()
		fmt.Println(reply, err)
	}
	plain := textproto.NewConn(c)
	say(plain, "HELLO plaintext")
	say(plain, "STARTTLS")
	secure := textproto.NewConn(tls.Client(c, tlstest.ClientConfig()))
	say(secure, "HELLO TLS")
	say(secure, "STARTTLS")
	// Output:
	// 250 HELLO plaintext <nil>
	// 220 go ahead <nil>
	// 250 HELLO TLS <nil>
	// 503 already secured <nil>
}
