package config

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
)

// newConfig is a tls.Config for one protocol. clientCAs may be nil.
func (cs *Certificates) newConfig(protocol string, clientCAs *x509.CertPool) *tls.Config {
	minVersion, suites := cs.tls.Profile.parameters()
	return &tls.Config{
		Time:         cs.now,
		MinVersion:   minVersion,
		CipherSuites: suites,
		// A client that insists on P-521 would cost ten times the CPU.
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256},
		// A client that offers ALPN without protocol is not speaking it (ALPACA); never add h2.
		NextProtos: alpn(protocol),
		// Certificates stays empty: only so does a nil certificate become the
		// alert unrecognized_name.
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cs.set.Load().choose(hello, cs.tls.StrictSNI), nil
		},
		ClientAuth: cs.tls.ClientAuth.authType(),
		ClientCAs:  clientCAs,
		// Keys are those of Tickets.
		SessionTicketsDisabled: cs.tls.SessionTickets.Off,
		// One record and one write for 16 KiB where the default makes five, to
		// show a browser its first bytes sooner. A reply line gains nothing by that.
		DynamicRecordSizingDisabled: true,
	}
}

// alpn is the name of protocol in the IANA registry, where it is in there. With ftp,
// data connections use a clone of the Config, and some clients name them apart.
// x-filezilla-ftp stays out: who gets that takes PROT P for granted.
func alpn(protocol string) []string {
	switch protocol {
	case "sieve":
		return []string{"managesieve"}
	case "ftp":
		return []string{"ftp", "ftp-data"}
	}
	return []string{protocol}
}

// parameters are the least TLS version and the cipher suites below TLS 1.3. No
// profile has RSA key exchange, RC4 or 3DES.
func (p Profile) parameters() (minVersion uint16, suites []uint16) {
	aead := []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
	switch p {
	case Modern:
		return tls.VersionTLS13, nil
	case Legacy:
		return tls.VersionTLS10, append(aead,
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA)
	default:
		return tls.VersionTLS12, aead
	}
}

func (a ClientAuth) authType() tls.ClientAuthType {
	switch a {
	case RequestClientCert:
		return tls.RequestClientCert
	case VerifyClientCert:
		return tls.VerifyClientCertIfGiven
	case RequireClientCert:
		return tls.RequireAndVerifyClientCert
	default:
		return tls.NoClientCert
	}
}

// certSet is the certificates in the order of the file, by the names they are for.
type certSet struct {
	all        []*tls.Certificate
	exact      map[string][]*tls.Certificate // mx.example.org
	wildcard   map[string][]*tls.Certificate // .example.org, from *.example.org
	selfSigned bool
}

func newCertSet(all []*tls.Certificate) *certSet {
	s := &certSet{
		all:      all,
		exact:    make(map[string][]*tls.Certificate),
		wildcard: make(map[string][]*tls.Certificate),
	}
	for _, cert := range all {
		for _, name := range cert.Leaf.DNSNames {
			name = strings.ToLower(name)
			if parent, ok := strings.CutPrefix(name, "*"); ok {
				s.wildcard[parent] = append(s.wildcard[parent], cert)
			} else {
				s.exact[name] = append(s.exact[name], cert)
			}
		}
	}
	return s
}

// choose returns the first certificate for the name the client asks for that it
// also supports (RSA or ECDSA). A client that names no server, or one that is
// unknown, chooses among all; when strict, an unknown name gets none.
func (s *certSet) choose(hello *tls.ClientHelloInfo, strict bool) *tls.Certificate {
	candidates := s.named(strings.ToLower(hello.ServerName)) // crypto/tls refuses a trailing dot
	if candidates == nil {
		if strict && hello.ServerName != "" {
			return nil
		}
		candidates = s.all
	}
	if len(candidates) == 1 {
		return candidates[0]
	}
	anyName := *hello // SupportsCertificate would match the name again
	anyName.ServerName = ""
	i := slices.IndexFunc(candidates, func(c *tls.Certificate) bool { return anyName.SupportsCertificate(c) == nil })
	return candidates[max(i, 0)]
}

func (s *certSet) named(name string) []*tls.Certificate {
	if certs := s.exact[name]; certs != nil {
		return certs
	}
	if dot := strings.IndexByte(name, '.'); dot > 0 {
		return s.wildcard[name[dot:]]
	}
	return nil
}
