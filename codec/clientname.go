package codec

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"strings"
)

// maxClientName cuts what an authority may have put into a certificate.
const maxClientName = 64 // ub-common-name of RFC 5280

// ClientName is whom a verified client certificate is for: its common name, or else
// its first address or host name. It is "" without a verified certificate, and has
// printable ASCII alone, without brackets, quotes and backslashes.
func ClientName(s *tls.ConnectionState) string {
	if s == nil || len(s.VerifiedChains) == 0 {
		return ""
	}
	leaf := s.VerifiedChains[0][0]
	name := cmp.Or(leaf.Subject.CommonName, first(leaf.EmailAddresses), first(leaf.DNSNames), uri(leaf), "?")
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`()<>[]"\\`, r) {
			return '?'
		}
		return r
	}, name)
	return name[:min(len(name), maxClientName)]
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return names[0]
}

func uri(leaf *x509.Certificate) string {
	if len(leaf.URIs) == 0 {
		return ""
	}
	return leaf.URIs[0].String()
}
