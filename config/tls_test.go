package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"
	"time"
)

func buildTLS(t *testing.T, c TLS, certs ...*tls.Certificate) *Certificates {
	t.Helper()
	for _, cert := range certs {
		c.Certificates = append(c.Certificates, files(t, cert))
	}
	built, err := (&Config{Hostname: "mx.example.org", TLS: c}).BuildTLS(quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// handshake connects client to server and returns what the client sees of it.
// The client reads one byte, because a TLS 1.3 server may refuse it afterwards.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer far.Close()
		conn := tls.Server(far, server)
		if conn.Handshake() == nil {
			_, _ = conn.Write([]byte("x"))
		}
	}()
	client = client.Clone()
	client.InsecureSkipVerify = true
	conn := tls.Client(near, client)
	_, err := conn.Read(make([]byte, 1))
	<-done
	return conn.ConnectionState(), err
}

// outcome is "" for nil and else the alert that the server sent.
func outcome(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), "remote error: tls: ")
}

func TestCertificateIsChosenByServerName(t *testing.T) {
	var certs []*tls.Certificate
	for _, names := range [][]string{
		{"mx.example.org", "MAIL.example.org"}, {"*.example.net"}, {"exact.example.net"}, {"xn--bcher-kva.example"},
	} {
		certs = append(certs, issue(t, newECDSA(t), nil, nil, names...))
	}
	lenient := buildTLS(t, TLS{}, certs...).ServerConfig("smtp")
	strict := buildTLS(t, TLS{StrictSNI: true}, certs...).ServerConfig("smtp")
	const none = -1 // for strict: the alert
	for name, want := range map[string]int{
		"":                      0, // strict too: it is not unknown
		"mx.example.org":        0,
		"MX.Example.ORG":        0,
		"mx.example.org.":       0, // Go's client leaves the dot out; crypto/tls refuses it
		"mail.example.org":      0,
		"any.example.net":       1,
		"exact.example.net":     2,
		"XN--BCHER-KVA.example": 3,
		"deep.any.example.net":  none, // a wildcard is one label
		"example.net":           none,
		".example.net":          none,
		"unknown.example":       none,
		"mx":                    none,
	} {
		state, err := handshake(t, lenient, &tls.Config{ServerName: name})
		if err != nil {
			t.Errorf("%q: %v", name, err)
		} else if got := state.PeerCertificates[0]; !got.Equal(certs[max(want, 0)].Leaf) {
			t.Errorf("%q gets the certificate of %v", name, got.DNSNames)
		}
		state, err = handshake(t, strict, &tls.Config{ServerName: name})
		switch {
		case want == none:
			if got := outcome(err); got != "unrecognized name" {
				t.Errorf("strict, %q: %q", name, got)
			}
		case err != nil:
			t.Errorf("strict, %q: %v", name, err)
		case !state.PeerCertificates[0].Equal(certs[want].Leaf):
			t.Errorf("strict, %q gets the certificate of %v", name, state.PeerCertificates[0].DNSNames)
		}
	}
}

func TestCertificateIsOneTheClientSupports(t *testing.T) {
	other := issue(t, newECDSA(t), nil, nil, "other.example.org")
	ec := issue(t, newECDSA(t), nil, nil, "mx.example.org")
	rsa := issue(t, newRSA(t), nil, nil, "mx.example.org")
	server := buildTLS(t, TLS{}, other, ec, rsa).ServerConfig("smtp")
	rsaOnly := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	for _, tt := range []struct {
		name    string
		client  *tls.Config
		sni     string
		want    *tls.Certificate
		refused string
	}{
		{name: "both", client: &tls.Config{}, sni: "mx.example.org", want: ec},
		{name: "RSA", client: rsaOnly, sni: "mx.example.org", want: rsa},
		{name: "RSA and no name", client: rsaOnly, want: rsa},
		{name: "RSA and an unknown name", client: rsaOnly, sni: "unknown.example", want: rsa},
		{name: "RSA and a name with ECDSA alone", client: rsaOnly, sni: "other.example.org", refused: "handshake failure"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client := tt.client.Clone()
			client.ServerName = tt.sni
			state, err := handshake(t, server, client)
			if got := outcome(err); got != tt.refused {
				t.Fatalf("refused %q, want %q", got, tt.refused)
			}
			if err == nil && !state.PeerCertificates[0].Equal(tt.want.Leaf) {
				t.Errorf("got the certificate of %v, %v", state.PeerCertificates[0].DNSNames, state.PeerCertificates[0].PublicKeyAlgorithm)
			}
		})
	}
}

func TestProfileBoundsTheVersion(t *testing.T) {
	rsa := issue(t, newRSA(t), nil, nil, "mx.example.org")
	for profile, least := range map[Profile]uint16{
		Modern:       tls.VersionTLS13,
		Intermediate: tls.VersionTLS12,
		Legacy:       tls.VersionTLS10,
	} {
		server := buildTLS(t, TLS{Profile: profile}, rsa).ServerConfig("smtp")
		for version := uint16(tls.VersionTLS10); version <= tls.VersionTLS13; version++ {
			want := ""
			if version < least {
				want = "protocol version not supported"
			}
			_, err := handshake(t, server, &tls.Config{MinVersion: version, MaxVersion: version})
			if got := outcome(err); got != want {
				t.Errorf("%s, %s: %q, want %q", profile, tls.VersionName(version), got, want)
			}
		}
	}
}

func TestProfileBoundsTheCipherSuites(t *testing.T) {
	rsa := issue(t, newRSA(t), nil, nil, "mx.example.org")
	for _, tt := range []struct {
		profile Profile
		suite   uint16
		want    string
	}{
		{Intermediate, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, ""},
		{Intermediate, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, ""},
		{Intermediate, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, ""},
		{Intermediate, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, "handshake failure"},
		{Intermediate, tls.TLS_RSA_WITH_AES_128_GCM_SHA256, "handshake failure"},
		{Legacy, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, ""},
		{Legacy, tls.TLS_RSA_WITH_AES_128_CBC_SHA, "handshake failure"},
		{Legacy, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, "handshake failure"},
		{Legacy, tls.TLS_ECDHE_RSA_WITH_RC4_128_SHA, "handshake failure"},
	} {
		server := buildTLS(t, TLS{Profile: tt.profile}, rsa).ServerConfig("smtp")
		_, err := handshake(t, server, &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tt.suite}})
		if got := outcome(err); got != tt.want {
			t.Errorf("%s, %s: %q, want %q", tt.profile, tls.CipherSuiteName(tt.suite), got, tt.want)
		}
	}
}

func TestDearGroupsAreRefused(t *testing.T) {
	server := buildTLS(t, TLS{}).ServerConfig("smtp")
	for group, want := range map[tls.CurveID]string{
		tls.X25519MLKEM768:     "",
		tls.X25519:             "",
		tls.CurveP256:          "",
		tls.CurveP384:          "handshake failure",
		tls.CurveP521:          "handshake failure",
		tls.SecP384r1MLKEM1024: "handshake failure",
	} {
		state, err := handshake(t, server, &tls.Config{CurvePreferences: []tls.CurveID{group}, MinVersion: tls.VersionTLS13})
		if got := outcome(err); got != want {
			t.Errorf("%v: %q, want %q", group, got, want)
		} else if err == nil && state.CurveID != group {
			t.Errorf("%v became %v", group, state.CurveID)
		}
	}
}

// TestALPNOfAnotherProtocolEndsTheHandshake: ALPACA (CVE-2021-3618).
func TestALPNOfAnotherProtocolEndsTheHandshake(t *testing.T) {
	server := buildTLS(t, TLS{}).ServerConfig("smtp")
	for _, tt := range []struct {
		offer          []string
		chosen, refuse string
	}{
		{nil, "", ""},
		{[]string{"smtp"}, "smtp", ""},
		{[]string{"h2", "smtp"}, "smtp", ""},
		{[]string{"h2", "http/1.1"}, "", "no application protocol"},
		{[]string{"http/1.1"}, "", "no application protocol"},
		{[]string{"imap"}, "", "no application protocol"},
	} {
		state, err := handshake(t, server, &tls.Config{NextProtos: tt.offer})
		if got := outcome(err); got != tt.refuse || state.NegotiatedProtocol != tt.chosen {
			t.Errorf("%v: chosen %q, refused %q", tt.offer, state.NegotiatedProtocol, got)
		}
	}
}

func TestClientAuth(t *testing.T) {
	ca := authority(t)
	client := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }
	trusted := issue(t, newECDSA(t), ca, client, "client")
	stranger := issue(t, newECDSA(t), authority(t), client, "client")
	caFile := write(t, t.TempDir(), "ca.pem", certPEM(ca))

	const unknown = "unknown certificate authority"
	for _, tt := range []struct {
		auth                     ClientAuth
		none, trusted, untrusted string
	}{
		{NoClientCert, "", "", ""},
		{RequestClientCert, "", "", ""},
		{VerifyClientCert, "", "", unknown},
		{RequireClientCert, "certificate required", "", unknown},
	} {
		server := buildTLS(t, TLS{ClientAuth: tt.auth, ClientCA: caFile}).ServerConfig("smtp")
		for _, by := range []struct {
			who  string
			cert *tls.Certificate
			want string
		}{
			{"nobody", &tls.Certificate{}, tt.none}, {"trusted", trusted, tt.trusted}, {"stranger", stranger, tt.untrusted},
		} {
			asked := false
			_, err := handshake(t, server, &tls.Config{
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { // whatever CAs are asked for
					asked = true
					return by.cert, nil
				},
			})
			if got := outcome(err); got != by.want || asked != (tt.auth != NoClientCert) {
				t.Errorf("%s, %s: %q, want %q; asked %v", tt.auth, by.who, got, by.want, asked)
			}
		}
	}
}

func TestClientCertificateIsJudgedByTheGivenClock(t *testing.T) {
	ca := authority(t)
	client := issue(t, newECDSA(t), ca, nil, "client")
	c := &Config{Hostname: "mx", TLS: TLS{ClientAuth: RequireClientCert, ClientCA: write(t, t.TempDir(), "ca.pem", certPEM(ca))}}
	certs, err := c.BuildTLS(quiet, func() time.Time { return time.Now().AddDate(0, 0, 31) })
	if err != nil {
		t.Fatal(err)
	}
	_, err = handshake(t, certs.ServerConfig("smtp"), &tls.Config{Certificates: []tls.Certificate{*client}})
	if got := outcome(err); got != "expired certificate" {
		t.Errorf("refused %q", got)
	}
}

// TestTicketOfOneProtocolDoesNotResumeOnAnother (golang/go#77217).
func TestTicketOfOneProtocolDoesNotResumeOnAnother(t *testing.T) {
	certs := buildTLS(t, TLS{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		client := &tls.Config{
			MaxVersion: version, ServerName: "mx.example.org", ClientSessionCache: tls.NewLRUClientSessionCache(1),
		}
		for _, tt := range []struct {
			protocol string
			resumed  bool
		}{{"smtp", false}, {"smtp", true}, {"imap", false}, {"imap", true}} {
			state, err := handshake(t, certs.ServerConfig(tt.protocol), client)
			if err != nil {
				t.Fatal(err)
			}
			if state.DidResume != tt.resumed {
				t.Errorf("%s, %s: resumed %v", tls.VersionName(version), tt.protocol, state.DidResume)
			}
		}
	}
}

func TestServerConfigIsOneForAllListenersOfAProtocol(t *testing.T) {
	certs := buildTLS(t, TLS{})
	cfg := certs.ServerConfig("smtp")
	if certs.ServerConfig("smtp") != cfg {
		t.Error("a second listener has its own tickets")
	}
	if cfg.KeyLogWriter != nil {
		t.Error("session keys are logged")
	}
}
