package backend

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"unicode/utf8"

	"github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"

	"starttlsd/codec"
)

// proxyHeader tells who the client is and which of our addresses it has reached, in
// the terms of https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt; version
// 2 also says how it is secured. Where one address is IPv4 and the other is not,
// both are written as IPv6.
func proxyHeader(version int, c *codec.Client) ([]byte, error) {
	h := proxyproto.HeaderProxyFromAddrs(byte(version), tcpAddr(c.Peer.Remote), tcpAddr(c.Peer.Local()))
	if version == 2 {
		tlvs, err := proxyTLVs(c)
		if err == nil {
			err = h.SetTLVs(tlvs)
		}
		if err != nil {
			return nil, err
		}
	}
	return h.Format()
}

func tcpAddr(a netip.AddrPort) *net.TCPAddr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port()))
}

func proxyTLVs(c *codec.Client) ([]proxyproto.TLV, error) {
	tlvs := []proxyproto.TLV{{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: []byte(c.Peer.ID.String())}}
	if c.TLS == nil {
		return tlvs, nil
	}
	if c.TLS.NegotiatedProtocol != "" {
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_ALPN, Value: []byte(c.TLS.NegotiatedProtocol)})
	}
	if isName(c.TLS.ServerName) { // the client may have sent anything
		tlvs = append(tlvs, proxyproto.TLV{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte(c.TLS.ServerName)})
	}
	ssl, err := sslTLV(c.TLS)
	return append(tlvs, ssl), err
}

// maxCommonName is ub-common-name of RFC 5280, in octets of UTF-8.
const maxCommonName = 4 * 64

func sslTLV(state *tls.ConnectionState) (proxyproto.TLV, error) {
	ssl := tlvparse.PP2SSL{
		Client: tlvparse.PP2_BITFIELD_CLIENT_SSL,
		Verify: 1,
		TLV: []proxyproto.TLV{
			{Type: proxyproto.PP2_SUBTYPE_SSL_VERSION, Value: fmt.Appendf(nil, "TLSv1.%d", state.Version-tls.VersionTLS10)},
			{Type: proxyproto.PP2_SUBTYPE_SSL_CIPHER, Value: []byte(tls.CipherSuiteName(state.CipherSuite))},
		},
	}
	if len(state.PeerCertificates) > 0 {
		ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_SESS
		if !state.DidResume {
			ssl.Client |= tlvparse.PP2_BITFIELD_CLIENT_CERT_CONN
		}
	}
	if len(state.VerifiedChains) > 0 {
		ssl.Verify = 0
		name := state.VerifiedChains[0][0].Subject.CommonName
		if name != "" && len(name) <= maxCommonName && utf8.ValidString(name) {
			ssl.TLV = append(ssl.TLV, proxyproto.TLV{Type: proxyproto.PP2_SUBTYPE_SSL_CN, Value: []byte(name)})
		}
	}
	return ssl.Marshal()
}
