package backend

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"starttlsd/codec"
	"starttlsd/tlsbridge/tlstest"
)

func peer(remote, local string) *codec.Peer {
	p := codec.NewPeer(433, netip.MustParseAddrPort(remote), netip.MustParseAddrPort(local))
	return &p
}

// parsed reads the header back with the library.
func parsed(t *testing.T, version int, c *codec.Client) *proxyproto.Header {
	t.Helper()
	b, err := proxyHeader(version, c)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(bytes.NewReader(b))
	h, err := proxyproto.Read(r)
	if err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	if _, err := r.Peek(1); err != io.EOF {
		t.Errorf("there is more than a header in %q", b)
	}
	return h
}

var pairs = []struct{ name, remote, local, v1 string }{
	{"IPv4", "192.0.2.1:40000", "192.0.2.2:25", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n"},
	{"IPv4 on an IPv6 socket", "[::ffff:192.0.2.1]:40000", "[::ffff:192.0.2.2]:25", "PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n"},
	{"IPv6", "[2001:db8::1]:40000", "[2001:db8::2]:25", "PROXY TCP6 2001:db8::1 2001:db8::2 40000 25\r\n"},
	{"with zones", "[fe80::1%eth0]:40000", "[fe80::2%eth0]:25", "PROXY TCP6 fe80::1 fe80::2 40000 25\r\n"},
	{"mixed", "192.0.2.1:40000", "[2001:db8::2]:25", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 40000 25\r\n"},
}

func TestProxyHeaderHasTheAddresses(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			c := &codec.Client{Peer: peer(p.remote, p.local)}
			if b, err := proxyHeader(1, c); string(b) != p.v1 || err != nil {
				t.Errorf("version 1 is %q, %v", b, err)
			}
			one, two := parsed(t, 1, c), parsed(t, 2, c)
			for _, h := range []*proxyproto.Header{one, two} {
				from, to, ok := h.TCPAddrs()
				want, local := c.Peer.Remote, c.Peer.Local()
				if !ok || !h.Command.IsProxy() || !from.IP.Equal(want.Addr().AsSlice()) || !to.IP.Equal(local.Addr().AsSlice()) ||
					from.Port != int(want.Port()) || to.Port != int(local.Port()) {
					t.Errorf("version %d: %+v", h.Version, h)
				}
			}
			if one.TransportProtocol != two.TransportProtocol {
				t.Errorf("%v and %v", one.TransportProtocol, two.TransportProtocol)
			}
		})
	}
}

func TestProxyHeaderWithoutAnAddress(t *testing.T) {
	p := codec.NewPeer(433, netip.AddrPort{}, netip.MustParseAddrPort("192.0.2.2:25"))
	c := &codec.Client{Peer: &p}
	if b, _ := proxyHeader(1, c); string(b) != "PROXY UNKNOWN\r\n" {
		t.Errorf("%q", b)
	}
	if h := parsed(t, 2, c); !h.Command.IsLocal() {
		t.Errorf("%+v", h)
	}
}

// tlvs are those of a header of version 2, with the parsed one about TLS.
func tlvs(t *testing.T, h *proxyproto.Header) (map[proxyproto.PP2Type]string, tlvparse.PP2SSL) {
	t.Helper()
	all, err := h.TLVs()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[proxyproto.PP2Type]string)
	for _, tlv := range all {
		values[tlv.Type] = string(tlv.Value)
	}
	ssl, _ := tlvparse.FindSSL(all)
	return values, ssl
}

func TestProxyHeaderSaysHowTheClientIsSecured(t *testing.T) {
	c := client()
	values, ssl := tlvs(t, parsed(t, 2, c))
	for typ, want := range map[proxyproto.PP2Type]string{
		proxyproto.PP2_TYPE_UNIQUE_ID: c.Peer.ID.String(),
		proxyproto.PP2_TYPE_AUTHORITY: c.TLS.ServerName,
		proxyproto.PP2_TYPE_ALPN:      "smtp",
	} {
		if values[typ] != want {
			t.Errorf("type %#x is %q, want %q", typ, values[typ], want)
		}
	}
	version, _ := ssl.SSLVersion()
	cipher, _ := ssl.SSLCipher()
	name, _ := ssl.ClientCN()
	if version != "TLSv1.3" || cipher != "TLS_AES_128_GCM_SHA256" || name != "alice" {
		t.Errorf("%q, %q, %q", version, cipher, name)
	}
	if !ssl.ClientSSL() || !ssl.ClientCertConn() || !ssl.ClientCertSess() || !ssl.Verified() {
		t.Errorf("%+v", ssl)
	}
}

func TestProxyHeaderSaysNothingOfTLSInPlaintext(t *testing.T) {
	values, _ := tlvs(t, parsed(t, 2, &codec.Client{Peer: peer("192.0.2.1:40000", "192.0.2.2:25")}))
	if len(values) != 1 || values[proxyproto.PP2_TYPE_UNIQUE_ID] == "" {
		t.Errorf("%q", values)
	}
}

func TestCertificateThatIsNotVerifiedNamesNobody(t *testing.T) {
	c := client()
	c.TLS.VerifiedChains = nil
	_, ssl := tlvs(t, parsed(t, 2, c))
	if _, named := ssl.ClientCN(); named || ssl.Verified() || !ssl.ClientCertConn() {
		t.Errorf("%+v", ssl)
	}
	c.TLS.PeerCertificates = nil
	if _, ssl := tlvs(t, parsed(t, 2, c)); ssl.Verified() || ssl.ClientCertConn() || ssl.ClientCertSess() {
		t.Errorf("without a certificate: %+v", ssl)
	}
}

func TestCertificateOfAResumedSession(t *testing.T) {
	c := client()
	c.TLS.DidResume = true
	if _, ssl := tlvs(t, parsed(t, 2, c)); !ssl.Verified() || ssl.ClientCertConn() || !ssl.ClientCertSess() {
		t.Errorf("%+v", ssl)
	}
}

// TestNameThatIsNoneIsNotPassedOn: the client chooses what it asks for with SNI.
func TestNameThatIsNoneIsNotPassedOn(t *testing.T) {
	for _, name := range []string{"a\r\nb", "a b", "\xff", "a\x00", strings.Repeat("a", 256)} {
		c := client()
		c.TLS.ServerName = name
		if values, _ := tlvs(t, parsed(t, 2, c)); values[proxyproto.PP2_TYPE_AUTHORITY] != "" {
			t.Errorf("%q is passed on", name)
		}
	}
}

func TestProxyHeaderComesBeforeEverything(t *testing.T) {
	for _, scheme := range []Scheme{Plain, Implicit} {
		for _, version := range []int{1, 2} {
			headers := make(chan *proxyproto.Header, 1)
			at := serve(t, "127.0.0.1:0", func(c net.Conn) {
				r := bufio.NewReader(c)
				h, err := proxyproto.Read(r)
				if err != nil {
					t.Error(err)
				}
				headers <- h
				c = buffered{c, r}
				if scheme == Implicit {
					c = tls.Server(c, tlstest.ServerConfig())
				}
				untilEnd("220 hello\r\n")(c)
			})
			dial(t, newServer(t, Options{Address: address(scheme, at), Proxy: version}), readGreeting)
			if h := <-headers; h == nil || int(h.Version) != version || h.SourceAddr.String() != "192.0.2.1:40000" {
				t.Errorf("%s, version %d: %+v", scheme, version, h)
			}
		}
	}
}

// buffered is a connection of which some was read ahead.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
