// Package tlstest has certificates and configurations for tests of TLS: one CA,
// made once a process, whose certificates are valid from 1999 until 2099, so
// that they also hold in a testing/synctest bubble (which starts in 2000).
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ServerName is the name that ServerConfig has a certificate for and ClientConfig asks for.
const ServerName = "mail.example.org"

var (
	notBefore = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
)

type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

var ca = sync.OnceValue(func() authority {
	template := newTemplate("tlstest CA")
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key := newKey()
	cert := sign(template, authority{template, key}, key)
	return authority{cert, key}
})

var defaultServer = sync.OnceValue(func() tls.Certificate {
	return Certificate(ServerName, "localhost", "127.0.0.1", "::1")
})

// ServerConfig returns a new configuration with a certificate for ServerName,
// localhost, 127.0.0.1 and ::1.
func ServerConfig() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{defaultServer()}}
}

// ClientConfig returns a new configuration that trusts the CA and asks for ServerName.
func ClientConfig() *tls.Config {
	return &tls.Config{RootCAs: Roots(), ServerName: ServerName}
}

// Roots returns a new pool with the CA in it. It serves for client certificates too.
func Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca().cert)
	return pool
}

// Certificate returns a new server certificate for the names, which may be IP addresses.
func Certificate(names ...string) tls.Certificate {
	template := newTemplate(names[0])
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	return issue(template)
}

// Expired returns a server certificate for name that is good for nothing since 2000.
func Expired(name string) tls.Certificate {
	template := newTemplate(name)
	template.DNSNames = []string{name}
	template.NotAfter = notBefore.AddDate(1, 0, 0)
	return issue(template)
}

// ClientCertificate returns a new client certificate for name.
func ClientCertificate(name string) tls.Certificate {
	template := newTemplate(name)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return issue(template)
}

// WritePEM writes cert and its key to two files in dir and returns their names.
// It panics when that fails.
func WritePEM(dir string, cert tls.Certificate) (certFile, keyFile string) {
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	key := must(x509.MarshalPKCS8PrivateKey(cert.PrivateKey))
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	check(os.WriteFile(certFile, chain, 0o644))
	check(os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	return certFile, keyFile
}

// WriteRoots writes the CA's certificate to file, as PEM. It panics when that fails.
func WriteRoots(file string) {
	block := &pem.Block{Type: "CERTIFICATE", Bytes: ca().cert.Raw}
	check(os.WriteFile(file, pem.EncodeToMemory(block), 0o644))
}

func newTemplate(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: must(rand.Int(rand.Reader, big.NewInt(1<<62))),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    notBefore,
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func issue(template *x509.Certificate) tls.Certificate {
	key := newKey()
	leaf := sign(template, ca(), key)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
}

func sign(template *x509.Certificate, by authority, key *ecdsa.PrivateKey) *x509.Certificate {
	der := must(x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key))
	return must(x509.ParseCertificate(der))
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
