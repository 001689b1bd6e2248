package peers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"text/template"
	"time"
)

// lab is what the contestants share: a directory, a certificate, and the two
// programs that are built from this module.
type lab struct {
	dir       string
	cert, key string
	starttlsd func() (string, error)
	bench     func() (string, error)
}

const hostname = "peers.example"

// newLab measures the program at the path starttlsd, or builds it where that is "".
func newLab(ctx context.Context, starttlsd string) (*lab, error) {
	dir, err := os.MkdirTemp("", "starttlsd-peers-")
	if err != nil {
		return nil, err
	}
	// Postfix and Dovecot leave root behind and come back to their files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	l := &lab{dir: dir, cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	l.starttlsd = sync.OnceValues(func() (string, error) {
		if starttlsd != "" {
			return filepath.Abs(starttlsd)
		}
		return l.build(ctx, "starttlsd", ".")
	})
	l.bench = sync.OnceValues(func() (string, error) { return l.build(ctx, "bench", "./bench") })
	if err := writeCertificate(l.cert, l.key, time.Now()); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) close() { _ = os.RemoveAll(l.dir) }

func (l *lab) build(ctx context.Context, name, pkg string) (string, error) {
	root, err := say(ctx, "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	path := filepath.Join(l.dir, name)
	_, err = sayIn(ctx, root, 5*time.Minute, "go", "build", "-o", path, pkg)
	return path, err
}

// writeCertificate makes a self-signed certificate with an ECDSA key on P-256.
func writeCertificate(certFile, keyFile string, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: hostname},
		DNSNames:     []string{hostname},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(0, 1, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	if err := os.WriteFile(certFile, block("CERTIFICATE", der), 0o644); err != nil {
		return err
	}
	return os.WriteFile(keyFile, block("PRIVATE KEY", keyDER), 0o600)
}

// settings are what the configurations are made of.
type settings struct {
	Dir, Cert, Key   string // absolute
	Addr, Host, Port string
	Hostname         string
	Descriptors      uint64 // a process may have
	Root             bool
	User, Group      string // of this process
	Module           string // nginx: the file to be loaded, if any
	Backend          string // relays: where they pass on to
	Auth             string // nginx as a relay: who tells it where to
	Files            string // vsftpd: the directory that clients see
	Secure           bool   // vsftpd: with its own TLS
}

// settle makes a directory for a server and finds an address for it.
func (l *lab) settle(name string) (*settings, error) {
	dir, err := os.MkdirTemp(l.dir, name+"-")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // as in newLab
		return nil, err
	}
	s := &settings{Dir: dir, Cert: l.cert, Key: l.key, Hostname: hostname,
		Descriptors: descriptors(), Root: os.Geteuid() == 0}
	if s.Addr, err = freeAddr(); err != nil {
		return nil, err
	}
	s.Host, s.Port, _ = strings.Cut(s.Addr, ":")
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		return nil, err
	}
	s.User, s.Group = me.Username, group.Name
	return s, nil
}

// write makes a configuration file in the server's directory from its template.
func (s *settings) write(name, text string) (path string, err error) {
	conf, err := s.fill(text)
	if err != nil {
		return "", err
	}
	path = filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, conf, 0o644)
}

func (s *settings) fill(text string) ([]byte, error) {
	t, err := template.New("").Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, s)
	return b.Bytes(), err
}

// server is the one with these settings, to be started.
func (s *settings) server(name, version string) *Server {
	return &Server{Name: name, Version: version, Addr: s.Addr,
		tidy: []func(){func() { _ = os.RemoveAll(s.Dir) }}}
}

// foreground starts a server that does not detach, and waits until it greets.
func (s *settings) foreground(ctx context.Context, srv *Server, argv ...string) (*Server, error) {
	pid, exited, err := launch(s.Dir, argv...)
	if err == nil {
		srv.PID = pid
		err = greets(ctx, s.Addr, exited)
	}
	if err != nil {
		err = fmt.Errorf("%s did not start: %w: %s", srv.Name, err, lastLines(s.Dir))
		srv.Stop()
		return nil, err
	}
	return srv, nil
}

// descriptors is how many a process may have. Go has raised the soft limit.
func descriptors() uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return uint64(min(limit.Cur, 1<<20))
}
