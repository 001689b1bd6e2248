package backend

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
	"starttlsd/tlsbridge"
	"starttlsd/tlsbridge/tlstest"
)

// introducer is a session of which only Introduce is called.
type introducer struct {
	codec.Relayed
	introduce func(u codec.Upstream) error
}

func (i introducer) Introduce(u codec.Upstream, _ *codec.Client) error { return i.introduce(u) }

// readGreeting is the session of a server that speaks first.
var readGreeting = introducer{introduce: func(u codec.Upstream) error {
	line, err := u.ReadLine()
	if err == nil && string(line) != "220 hello" {
		err = fmt.Errorf("greeted with %q", line)
	}
	return err
}}

// starttls is a session that upgrades, and then asks for the greeting again.
var starttls = introducer{introduce: func(u codec.Upstream) error {
	if err := readGreeting.introduce(u); err != nil {
		return err
	}
	if !u.MustStartTLS() {
		return errors.New("no upgrade was asked for")
	}
	if _, err := u.Write([]byte("STARTTLS\r\n")); err != nil {
		return err
	}
	line, err := u.ReadLine()
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), "220 ") {
		return errors.New("the backend does not offer STARTTLS")
	}
	if err := u.StartTLS(); err != nil {
		return err
	}
	if u.MustStartTLS() {
		return errors.New("a second upgrade was asked for")
	}
	if _, err := u.Write([]byte("AGAIN\r\n")); err != nil {
		return err
	}
	return readGreeting.introduce(u)
}}

// client is one whose connection is secured with a verified certificate.
func client() *codec.Client {
	leaf := tlstest.ClientCertificate("alice").Leaf
	state := *codectest.TLS
	state.NegotiatedProtocol = "smtp"
	state.PeerCertificates = append(state.PeerCertificates, leaf)
	state.VerifiedChains = append(state.VerifiedChains, state.PeerCertificates)
	return &codec.Client{Peer: &codectest.Peer, TLS: &state}
}

// serve accepts connections on a loopback address until the test ends, and waits
// for what serves them.
func serve(t *testing.T, address string, each func(net.Conn)) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				each(c)
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return ln.Addr().(*net.TCPAddr).AddrPort()
}

// untilEnd says the words and waits for the client to go.
func untilEnd(words string) func(net.Conn) {
	return func(c net.Conn) {
		_, _ = io.WriteString(c, words)
		_, _ = io.Copy(io.Discard, c)
	}
}

func address(scheme Scheme, at netip.AddrPort) Address {
	return Address{Scheme: scheme, Host: at.Addr().String(), Port: at.Port()}
}

func newServer(t *testing.T, o Options) *Server {
	t.Helper()
	if o.TLS == nil {
		o.TLS = &tls.Config{RootCAs: tlstest.Roots()}
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial wants a connection.
func dial(t *testing.T, s *Server, sess codec.Relayed) *Conn {
	t.Helper()
	c, err := s.Dial(t.Context(), sess, client())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.TCP.Close() })
	return c
}

// failure wants an error of one line with these words.
func failure(t *testing.T, s *Server, sess codec.Relayed, words ...string) error {
	t.Helper()
	c, err := s.Dial(t.Context(), sess, client())
	if err == nil {
		_ = c.TCP.Close()
		t.Fatal("connected")
	}
	for _, w := range append(words, "backend "+s.opts.Address.String()+": ") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Errorf("more than a line: %q", err)
	}
	return err
}

// pong wants the connection to answer, whoever speaks over it now.
func pong(t *testing.T, c *Conn) {
	t.Helper()
	var rw io.ReadWriter = c.TCP
	if c.TLS != nil {
		rw = c.TLS
	}
	_, _ = io.WriteString(rw, "PING\r\n")
	if line, err := bufio.NewReader(rw).ReadString('\n'); line != "PONG\r\n" {
		t.Errorf("answered %q, %v", line, err)
	}
}

// ping is the server of pong.
func ping(r *bufio.Reader, c net.Conn) {
	if line, _ := r.ReadString('\n'); line == "PING\r\n" {
		_, _ = io.WriteString(c, "PONG\r\n")
	}
	_, _ = io.Copy(io.Discard, r)
}

func TestEverySchemeReachesTheServer(t *testing.T) {
	plain := func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n* ahead")
		ping(bufio.NewReader(c), c)
	}
	for scheme, test := range map[Scheme]struct {
		serve func(net.Conn)
		sess  codec.Relayed
	}{
		Plain:    {plain, readGreeting},
		Implicit: {func(c net.Conn) { plain(tls.Server(c, tlstest.ServerConfig())) }, readGreeting},
		StartTLS: {func(c net.Conn) {
			_, _ = io.WriteString(c, "220 hello\r\n")
			if line, _ := bufio.NewReader(c).ReadString('\n'); line != "STARTTLS\r\n" {
				t.Errorf("in clear: %q", line)
			}
			_, _ = io.WriteString(c, "220 go\r\n")
			s := tls.Server(c, tlstest.ServerConfig())
			r := bufio.NewReader(s)
			if line, _ := r.ReadString('\n'); line != "AGAIN\r\n" {
				t.Errorf("under TLS: %q", line)
			}
			_, _ = io.WriteString(s, "220 hello\r\n* ahead")
			ping(r, s)
		}, starttls},
	} {
		t.Run(string(scheme), func(t *testing.T) {
			at := serve(t, "127.0.0.1:0", test.serve)
			c := dial(t, newServer(t, Options{Address: address(scheme, at), Timeout: 5 * time.Second}), test.sess)
			if (c.TLS == nil) != (scheme == Plain) {
				t.Errorf("TLS %v", c.TLS)
			}
			if string(c.Ahead) != "* ahead" {
				t.Errorf("ahead %q", c.Ahead)
			}
			if c.TLS != nil && c.TLS.ConnectionState().PeerCertificates == nil {
				t.Error("no certificate was seen")
			}
			pong(t, c)
		})
	}
}

func TestConnHasNoDeadlineLeft(t *testing.T) {
	at := serve(t, "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		ping(bufio.NewReader(c), c)
	})
	const timeout = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	c, err := newServer(t, Options{Address: address(Plain, at), Timeout: timeout}).Dial(ctx, readGreeting, client())
	if err != nil {
		t.Fatal(err)
	}
	defer c.TCP.Close()
	cancel()
	time.Sleep(2 * timeout)
	pong(t, c)
}

func TestServerIsVerified(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  *tls.Config
		says []string
	}{
		"unknown authority": {&tls.Config{}, []string{"signed by unknown authority", "backend_options.ca"}},
		"another name": {
			&tls.Config{RootCAs: tlstest.Roots(), ServerName: "other.example"},
			[]string{"other.example", "backend_options.server_name"},
		},
	} {
		for _, scheme := range []Scheme{Implicit, StartTLS} {
			t.Run(name+"/"+string(scheme), func(t *testing.T) {
				at := serve(t, "127.0.0.1:0", func(c net.Conn) {
					if scheme == StartTLS {
						_, _ = io.WriteString(c, "220 hello\r\n")
						_, _ = bufio.NewReader(c).ReadString('\n')
						_, _ = io.WriteString(c, "220 go\r\n")
					}
					s := tls.Server(c, tlstest.ServerConfig())
					if line, err := bufio.NewReader(s).ReadString('\n'); err == nil {
						t.Errorf("was told %q", line)
					}
				})
				s := newServer(t, Options{Address: address(scheme, at), TLS: test.cfg})
				failure(t, s, starttls, append(test.says, "TLS handshake: ")...)
			})
		}
	}
	t.Run("the host of the address", func(t *testing.T) {
		at := serve(t, "127.0.0.1:0", func(c net.Conn) {
			_, _ = io.Copy(io.Discard, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{tlstest.Certificate("mx.example")}}))
		})
		failure(t, newServer(t, Options{Address: address(Implicit, at)}), readGreeting, "127.0.0.1", "server_name")
	})
	t.Run("expired", func(t *testing.T) {
		at := serve(t, "127.0.0.1:0", func(c net.Conn) {
			_, _ = io.Copy(io.Discard, tls.Server(c, &tls.Config{Certificates: []tls.Certificate{tlstest.Expired("127.0.0.1")}}))
		})
		failure(t, newServer(t, Options{Address: address(Implicit, at)}), readGreeting, "expired")
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		cfg := tlstest.ServerConfig()
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
		at := serve(t, "127.0.0.1:0", func(c net.Conn) { _, _ = io.Copy(io.Discard, tls.Server(c, cfg)) })
		s := newServer(t, Options{Address: address(Implicit, at), TLS: &tls.Config{RootCAs: tlstest.Roots(), MinVersion: tls.VersionTLS10}})
		failure(t, s, readGreeting, "protocol version")
	})
	t.Run("no TLS there", func(t *testing.T) {
		at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
		failure(t, newServer(t, Options{Address: address(Implicit, at)}), readGreeting, "starttls://")
	})
}

func TestClientCertificateIsShownToTheServer(t *testing.T) {
	cfg := tlstest.ServerConfig()
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
	at := serve(t, "127.0.0.1:0", func(c net.Conn) {
		s := tls.Server(c, cfg)
		if _, err := io.WriteString(s, "220 hello\r\n"); err != nil {
			return
		}
		if name := s.ConnectionState().PeerCertificates[0].Subject.CommonName; name != "gateway" {
			t.Errorf("we are %q", name)
		}
		_, _ = io.Copy(io.Discard, s)
	})
	ours := &tls.Config{RootCAs: tlstest.Roots(), Certificates: []tls.Certificate{tlstest.ClientCertificate("gateway")}}
	dial(t, newServer(t, Options{Address: address(Implicit, at), TLS: ours}), readGreeting)
	failure(t, newServer(t, Options{Address: address(Implicit, at)}), readGreeting, "certificate required")
}

func TestNothingIsSentWhenTheUpgradeIsNotSafe(t *testing.T) {
	for name, test := range map[string]struct {
		goAhead string
		says    string
	}{
		"not offered":               {"502 no\r\n", "does not offer STARTTLS"},
		"reply behind the go-ahead": {"220 go\r\n250 AUTH PLAIN\r\n", "behind the backend's go-ahead"},
		"a part of one behind it":   {"220 go\r\n250-EVI", "behind the backend's go-ahead"},
		"an octet behind it":        {"220 go\r\n\n", "behind the backend's go-ahead"},
	} {
		t.Run(name, func(t *testing.T) {
			heard := make(chan string, 1)
			at := serve(t, "127.0.0.1:0", func(c net.Conn) {
				_, _ = io.WriteString(c, "220 hello\r\n")
				r := bufio.NewReader(c)
				_, _ = r.ReadString('\n')
				_, _ = io.WriteString(c, test.goAhead)
				rest, _ := io.ReadAll(r)
				heard <- string(rest)
			})
			failure(t, newServer(t, Options{Address: address(StartTLS, at)}), starttls, test.says)
			if rest := <-heard; rest != "" {
				t.Errorf("was sent %q", rest)
			}
		})
	}
}

// What comes behind the go-ahead in a segment of its own breaks the handshake.
func TestPlaintextInPlaceOfTheHandshakeEndsIt(t *testing.T) {
	at := serve(t, "127.0.0.1:0", func(c net.Conn) {
		_, _ = io.WriteString(c, "220 hello\r\n")
		r := bufio.NewReader(c)
		_, _ = r.ReadString('\n')
		_, _ = io.WriteString(c, "220 go\r\n")
		_, _ = r.ReadByte() // the ClientHello is there
		_, _ = io.WriteString(c, "250 AUTH PLAIN\r\n")
		_, _ = io.Copy(io.Discard, r)
	})
	failure(t, newServer(t, Options{Address: address(StartTLS, at)}), starttls, "TLS handshake: ")
}

func TestSessionThatForgetsSTARTTLSGetsNoConnection(t *testing.T) {
	at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
	failure(t, newServer(t, Options{Address: address(StartTLS, at)}), readGreeting, "has not sent STARTTLS")
}

func TestStartTLSIsForItsSchemeAlone(t *testing.T) {
	twice := introducer{introduce: func(u codec.Upstream) error { return u.StartTLS() }}
	at := serve(t, "127.0.0.1:0", untilEnd("220 hello\r\n"))
	failure(t, newServer(t, Options{Address: address(Plain, at)}), twice, "STARTTLS is not due")
}

func TestConnIsATLSBridge(t *testing.T) {
	at := serve(t, "127.0.0.1:0", func(c net.Conn) { untilEnd("220 hello\r\n")(tls.Server(c, tlstest.ServerConfig())) })
	c := dial(t, newServer(t, Options{Address: address(Implicit, at)}), readGreeting)
	c.TLS.SetLink(dry{})
	if n, err := c.TLS.Read(make([]byte, 10)); n != 0 || err != tlsbridge.ErrWouldBlock {
		t.Errorf("read %d, %v", n, err)
	}
}

// dry is a link without input.
type dry struct{}

func (dry) Read([]byte) (int, error)    { return 0, tlsbridge.ErrWouldBlock }
func (dry) Write(p []byte) (int, error) { return len(p), nil }

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	secure := Address{Implicit, "mx.example", 25}
	for name, o := range map[string]Options{
		"no TLS":       {Address: secure},
		"not verified": {Address: secure, TLS: &tls.Config{InsecureSkipVerify: true}},
		"PROXY v3":     {Address: Address{Plain, "mx.example", 25}, Proxy: 3},
	} {
		if _, err := NewServer(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]Address{
		"tcp://127.0.0.1:143":        {Plain, "127.0.0.1", 143},
		"tls://[::1]:993":            {Implicit, "::1", 993},
		"starttls://mail_1.local.:1": {StartTLS, "mail_1.local.", 1},
	} {
		got, err := ParseAddress(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "mail:25", "http://mail:25", "tcp://", "tcp://mail", "tcp://mail:", "tcp://:25", "tcp://mail:0", "tcp://mail:65536",
		"tcp://mail:smtp", "tcp://::1:25", "tcp://a b:25", "tcp://a@b:25", "tcp://mail:25/", "TCP://mail:25", "tcp://mail\x00:25",
	} {
		if got, err := ParseAddress(text); err == nil {
			t.Errorf("%s is %v", text, got)
		}
	}
}

func TestCertificateIsForTheHost(t *testing.T) {
	for host, want := range map[string]string{
		"mx.example": "mx.example", "mx.example.": "mx.example", "::1": "::1", "fe80::1%eth0": "fe80::1", "10.0.0.1": "10.0.0.1",
	} {
		if got := (Address{Implicit, host, 25}).serverName(); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}
