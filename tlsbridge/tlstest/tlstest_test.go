package tlstest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"
)

func TestCertificatesVerifyFrom2000On(t *testing.T) {
	for _, year := range []int{2000, 2026, 2098} {
		o := x509.VerifyOptions{Roots: Roots(), CurrentTime: time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)}
		o.DNSName = ServerName
		if _, err := ServerConfig().Certificates[0].Leaf.Verify(o); err != nil {
			t.Errorf("%d: %v", year, err)
		}
		o.DNSName, o.KeyUsages = "", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := ClientCertificate("alice").Leaf.Verify(o); err != nil {
			t.Errorf("%d: %v", year, err)
		}
	}
}

func TestWritePEMIsReadBack(t *testing.T) {
	cert := Certificate("mx.example.org", "192.0.2.1")
	read, err := tls.LoadX509KeyPair(WritePEM(t.TempDir(), cert))
	if err != nil || !bytes.Equal(read.Certificate[0], cert.Certificate[0]) {
		t.Error(err)
	}
}
