package config

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

func newECDSA(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func newRSA(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsaKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for key, signed by parent or, if that is nil, by itself.
func issue(t *testing.T, key crypto.Signer, parent *tls.Certificate, change func(*x509.Certificate), names ...string) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: strings.Join(names, " ")},
		DNSNames:     names,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(0, 0, 30),
	}
	if change != nil {
		change(template)
	}
	issuer, signer := template, key
	if parent != nil {
		issuer, signer = parent.Leaf, parent.PrivateKey.(crypto.Signer)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func authority(t *testing.T) *tls.Certificate {
	t.Helper()
	return issue(t, newECDSA(t), nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}, "authority")
}

func certPEM(certs ...*tls.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
	}
	return out
}

func keyPEM(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func write(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// files writes cert and its key and names them.
func files(t *testing.T, cert *tls.Certificate) KeyPair {
	t.Helper()
	dir := t.TempDir()
	return KeyPair{
		Cert: write(t, dir, "cert.pem", certPEM(cert)),
		Key:  write(t, dir, "key.pem", keyPEM(t, cert.PrivateKey)),
	}
}

func TestBuildTLSSaysOneLineAboutAFile(t *testing.T) {
	dir := t.TempDir()
	leaf := issue(t, newECDSA(t), authority(t), nil, "mx.example.org")
	key := keyPEM(t, leaf.PrivateKey)
	for name, data := range map[string][]byte{
		"cert.pem":       certPEM(leaf),
		"key.pem":        key,
		"backward.pem":   certPEM(authority(t), authority(t), leaf),
		"other.pem":      keyPEM(t, newECDSA(t)),
		"rsa.pem":        keyPEM(t, newRSA(t)),
		"empty.pem":      nil,
		"cert.der":       leaf.Certificate[0],
		"csr.pem":        pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")}),
		"damaged.pem":    append(certPEM(leaf), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Certificate[0][:99]})...),
		"damagedkey.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}),
		"openssh.pem":    pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("secret")}),
		"encrypted.pem":  pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("secret")}),
		"oldcrypt.pem": pem.EncodeToMemory(&pem.Block{
			Type: "RSA PRIVATE KEY", Bytes: []byte("secret"),
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"},
		}),
	} {
		write(t, dir, name, data)
	}
	t.Chdir(dir)

	for _, tt := range []struct{ name, cert, key, want string }{
		{
			"certificate missing", "DIR/none.pem", "key.pem",
			":4:13: tls.certificates[0].cert: cannot read DIR/none.pem: no such file or directory; check the path",
		},
		{
			"relative path", "cert.pem", "none.pem",
			":5:12: tls.certificates[0].key: cannot read none.pem: no such file or directory; the path is relative to the working directory, DIR",
		},
		{
			"directory", "DIR", "key.pem",
			":4:13: tls.certificates[0].cert: cannot read DIR: is a directory; check the path",
		},
		{
			"empty file", "empty.pem", "key.pem",
			":4:13: tls.certificates[0].cert: empty.pem is not PEM; convert it with openssl x509 or openssl pkey, or name another file",
		},
		{
			"DER", "cert.der", "key.pem",
			":4:13: tls.certificates[0].cert: cert.der is not PEM; convert it with openssl x509 or openssl pkey, or name another file",
		},
		{
			"no certificate block", "csr.pem", "key.pem",
			":4:13: tls.certificates[0].cert: csr.pem holds no CERTIFICATE block but CERTIFICATE REQUEST; name the certificate's file",
		},
		{
			"no key block", "cert.pem", "csr.pem",
			":5:12: tls.certificates[0].key: csr.pem holds no PRIVATE KEY block but CERTIFICATE REQUEST; name the key's file",
		},
		{
			"swapped", "key.pem", "cert.pem",
			":4:13: tls.certificates[0].cert: key.pem holds a private key, not a certificate; name the certificate here and the key under key",
		},
		{
			"certificate as key", "cert.pem", "cert.pem",
			":5:12: tls.certificates[0].key: cert.pem holds a certificate, not a private key; name the key here and the certificate under cert",
		},
		{
			"damaged certificate", "damaged.pem", "key.pem",
			":4:13: tls.certificates[0].cert: certificate 2 in damaged.pem is damaged: x509: malformed certificate",
		},
		{
			"damaged key", "cert.pem", "damagedkey.pem",
			":5:12: tls.certificates[0].key: damagedkey.pem is not a usable private key; make it an RSA, ECDSA or Ed25519 one with openssl pkey -in damagedkey.pem -out FILE",
		},
		{
			"OpenSSH key", "cert.pem", "openssh.pem",
			":5:12: tls.certificates[0].key: openssh.pem is not a usable private key; make it an RSA, ECDSA or Ed25519 one with openssl pkey -in openssh.pem -out FILE",
		},
		{
			"encrypted key", "cert.pem", "encrypted.pem",
			":5:12: tls.certificates[0].key: encrypted.pem is encrypted; decrypt it with openssl pkey -in encrypted.pem -out FILE and name FILE",
		},
		{
			"encrypted key in the old form", "cert.pem", "oldcrypt.pem",
			":5:12: tls.certificates[0].key: oldcrypt.pem is encrypted; decrypt it with openssl pkey -in oldcrypt.pem -out FILE and name FILE",
		},
		{
			"key of another certificate", "cert.pem", "other.pem",
			":5:12: tls.certificates[0].key: other.pem does not belong to the certificate in cert.pem; name the key it was issued for",
		},
		{
			"key of another kind", "cert.pem", "rsa.pem",
			":5:12: tls.certificates[0].key: rsa.pem does not belong to the certificate in cert.pem; name the key it was issued for",
		},
		{
			"leaf not first", "backward.pem", "key.pem",
			":4:13: tls.certificates[0].cert: the server's certificate is number 3 in backward.pem; put it first, its issuers after it",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			yaml := head + "tls:\n  certificates:\n    - cert: " + tt.cert + "\n      key: " + tt.key + "\n"
			checkBuildError(t, dir, yaml, tt.want)
		})
	}
	t.Run("client_ca missing", func(t *testing.T) {
		checkBuildError(t, dir, head+"tls:\n  client_auth: require\n  client_ca: DIR/none.pem\n",
			":4:14: tls.client_ca: cannot read DIR/none.pem: no such file or directory; check the path")
	})
	t.Run("client_ca is a key", func(t *testing.T) {
		checkBuildError(t, dir, head+"tls:\n  client_auth: verify\n  client_ca: key.pem\n",
			":4:14: tls.client_ca: key.pem holds a private key, not a certificate; name the certificate here and the key under key")
	})
}

// checkBuildError wants BuildTLS to say exactly want, where DIR stands for dir.
func checkBuildError(t *testing.T, dir, yaml, want string) {
	t.Helper()
	c := mustParse(t, strings.ReplaceAll(yaml, "DIR", dir))
	_, err := c.BuildTLS(quiet, time.Now)
	if err == nil {
		t.Fatal("built")
	}
	got := strings.TrimPrefix(strings.ReplaceAll(err.Error(), dir, "DIR"), "starttlsd.yaml")
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
}

func TestUnreadableKeySaysWhatToDo(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	pair := files(t, issue(t, newECDSA(t), nil, nil, "mx"))
	if err := os.Chmod(pair.Key, 0); err != nil {
		t.Fatal(err)
	}
	_, err := pair.read()
	want := "key: cannot read " + pair.Key + ": permission denied; let the server's user read it"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestEveryUsualKeyFormLoads(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec := newECDSA(t).(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	sec1PEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	parameters := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}})
	pkcs1 := x509.MarshalPKCS1PrivateKey(newRSA(t))
	for name, tt := range map[string]struct {
		key crypto.Signer
		pem []byte
	}{
		"PKCS 8 ECDSA":            {ec, keyPEM(t, ec)},
		"PKCS 8 RSA":              {newRSA(t), keyPEM(t, newRSA(t))},
		"PKCS 8 Ed25519":          {ed, keyPEM(t, ed)},
		"PKCS 1":                  {newRSA(t), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: pkcs1})},
		"SEC 1":                   {ec, sec1PEM},
		"SEC 1 behind parameters": {ec, append(parameters, sec1PEM...)},
	} {
		t.Run(name, func(t *testing.T) {
			cert := issue(t, tt.key, nil, nil, "mx")
			both := write(t, t.TempDir(), "both.pem", append(tt.pem, certPEM(cert)...)) // one file for both will do
			if _, err := (KeyPair{Cert: both, Key: both}).read(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWarningsDoNotKeepTheServerFromStarting(t *testing.T) {
	now := time.Now()
	sound := files(t, issue(t, newECDSA(t), nil, nil, "mx"))
	exposed := files(t, issue(t, newECDSA(t), nil, nil, "mx"))
	if err := os.Chmod(exposed.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		tls  TLS
		now  time.Time
		want string
	}{
		{"nothing to warn about", TLS{Certificates: []KeyPair{sound}}, now, ""},
		{"expired", TLS{Certificates: []KeyPair{sound}}, now.AddDate(0, 0, 31), "certificate HAS EXPIRED"},
		{"expiring", TLS{Certificates: []KeyPair{sound}}, now.AddDate(0, 0, 17), "certificate expires soon"},
		{"not yet valid", TLS{Certificates: []KeyPair{sound}}, now.Add(-2 * time.Hour), "certificate IS NOT YET VALID"},
		{"key for everyone", TLS{Certificates: []KeyPair{exposed}}, now, "private key is readable by everyone"},
		{"legacy", TLS{Profile: Legacy}, now, "tls.profile is legacy"},
		{"client_ca unused", TLS{ClientAuth: NoClientCert, ClientCA: sound.Cert}, now, "tls.client_ca is not used"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			c := &Config{Hostname: "mx", TLS: tt.tls}
			_, err := c.BuildTLS(slog.New(slog.NewTextHandler(&log, nil)), func() time.Time { return tt.now })
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" && log.Len() == 0 {
				return
			}
			if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), `level=WARN msg="`+tt.want) {
				t.Errorf("logged %q, want one warning: %s", log.String(), tt.want)
			}
		})
	}
}

func TestSelfSignedCertificateIsForThisMachine(t *testing.T) {
	c := &Config{Hostname: "mx.example.org"}
	certs, err := c.BuildTLS(quiet, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	fingerprint, ok := certs.SelfSigned()
	if !ok {
		t.Fatal("not self-signed")
	}
	leaf := certs.set.Load().all[0].Leaf
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	for _, name := range []string{"mx.example.org", "localhost", "127.0.0.1", "::1"} {
		if _, err := leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left := time.Until(leaf.NotAfter); left < 364*24*time.Hour {
		t.Errorf("good for %v", left)
	}
	sum := sha256.Sum256(leaf.Raw)
	if plain := strings.ReplaceAll(fingerprint, ":", ""); len(fingerprint) != 95 || plain != strings.ToUpper(hex.EncodeToString(sum[:])) {
		t.Errorf("fingerprint %s", fingerprint)
	}

	pair := files(t, issue(t, newECDSA(t), nil, nil, "mx"))
	c.TLS.Certificates = []KeyPair{pair}
	if certs, err = c.BuildTLS(quiet, time.Now); err != nil {
		t.Fatal(err)
	}
	if fingerprint, ok := certs.SelfSigned(); ok {
		t.Errorf("a configured certificate has the fingerprint %s", fingerprint)
	}
}
