package config

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// read reads the pair. No error and no log line holds anything of the key.
func (p KeyPair) read() (*tls.Certificate, error) {
	chain, err := readChain(p.Cert)
	if err != nil {
		return nil, &keyError{"cert", err.Error()}
	}
	key, err := readKey(p.Key)
	if err != nil {
		return nil, &keyError{"key", err.Error()}
	}
	switch i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return belong(key, c) }); {
	case i < 0:
		return nil, &keyError{"key", fmt.Sprintf("%s does not belong to the certificate in %s; name the key it was issued for", p.Key, p.Cert)}
	case i > 0:
		return nil, &keyError{"cert", fmt.Sprintf("the server's certificate is number %d in %s; put it first, its issuers after it", i+1, p.Cert)}
	}
	cert := &tls.Certificate{PrivateKey: key, Leaf: chain[0]}
	for _, c := range chain {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

func belong(key crypto.Signer, c *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// warn logs what does not keep the server from starting. The peers are those who see
// the certificate.
func (p KeyPair) warn(log *slog.Logger, leaf *x509.Certificate, now time.Time, peers string) {
	if now.After(leaf.NotAfter) {
		log.Warn("certificate HAS EXPIRED, "+peers+" will refuse it: renew it", "cert", p.Cert, "not_after", leaf.NotAfter)
	}
	if now.Before(leaf.NotBefore) {
		log.Warn("certificate IS NOT YET VALID, "+peers+" will refuse it: check the clock", "cert", p.Cert, "not_before", leaf.NotBefore)
	}
	if info, err := os.Stat(p.Key); err == nil && info.Mode().Perm()&0o004 != 0 {
		log.Warn("private key is readable by everyone: chmod o-r", "key", p.Key)
	}
}

// readChain returns the certificates in file, at least one.
func readChain(file string) ([]*x509.Certificate, error) {
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	var chain []*x509.Certificate
	for _, b := range blocks {
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in %s is damaged: %w", len(chain)+1, file, err)
		}
		chain = append(chain, c)
	}
	switch {
	case len(chain) > 0:
		return chain, nil
	case slices.ContainsFunc(blocks, isKey):
		return nil, fmt.Errorf("%s holds a private key, not a certificate; name the certificate here and the key under key", file)
	default:
		return nil, fmt.Errorf("%s holds no CERTIFICATE block but %s; name the certificate's file", file, blocks[0].Type)
	}
}

// readKey returns the first private key in file.
func readKey(file string) (crypto.Signer, error) {
	blocks, err := readPEM(file)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(blocks, isKey) // openssl may put EC PARAMETERS before it
	switch {
	case i < 0 && blocks[0].Type == "CERTIFICATE":
		return nil, fmt.Errorf("%s holds a certificate, not a private key; name the key here and the certificate under cert", file)
	case i < 0:
		return nil, fmt.Errorf("%s holds no PRIVATE KEY block but %s; name the key's file", file, blocks[0].Type)
	case blocks[i].Type == "ENCRYPTED PRIVATE KEY" || blocks[i].Headers["DEK-Info"] != "":
		return nil, fmt.Errorf("%s is encrypted; decrypt it with openssl pkey -in %[1]s -out FILE and name FILE", file)
	}
	key, err := parseKey(blocks[i])
	if err != nil { // err may quote the key
		return nil, fmt.Errorf("%s is not a usable private key; make it an RSA, ECDSA or Ed25519 one with openssl pkey -in %[1]s -out FILE", file)
	}
	return key, nil
}

func isKey(b *pem.Block) bool { return strings.HasSuffix(b.Type, "PRIVATE KEY") }

func parseKey(b *pem.Block) (crypto.Signer, error) {
	switch b.Type {
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(b.Bytes)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.Bytes)
	}
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a key that signs")
	}
	return signer, nil
}

// readPEM returns the PEM blocks in file, at least one.
func readPEM(file string) ([]*pem.Block, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("cannot read %s: %w; %s", file, cause(err), unreadable(file, err))
	}
	var blocks []*pem.Block
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		blocks = append(blocks, block)
	}
	if blocks == nil {
		return nil, fmt.Errorf("%s is not PEM; convert it with openssl x509 or openssl pkey, or name another file", file)
	}
	return blocks, nil
}

// unreadable says what to do about err.
func unreadable(file string, err error) string {
	switch dir, wdErr := os.Getwd(); {
	case errors.Is(err, fs.ErrPermission):
		return "let the server's user read it"
	case wdErr == nil && !filepath.IsAbs(file):
		return "the path is relative to the working directory, " + dir
	default:
		return "check the path"
	}
}

// selfSigned makes an ECDSA P-256 certificate for hostname and this machine,
// good for a year: the process is expected to be restarted before that.
func selfSigned(hostname string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cmp.Or(hostname, "localhost")},
		DNSNames:     []string{hostname, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    now.Add(-time.Hour), // a client's clock may be behind ours
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// fingerprint256 is the SHA-256 of c as openssl prints it: AB:CD:…
func fingerprint256(c *x509.Certificate) string {
	return strings.ReplaceAll(fmt.Sprintf("% X", sha256.Sum256(c.Raw)), " ", ":")
}
