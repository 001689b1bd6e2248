package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"starttlsd/backend"
	"starttlsd/tlsbridge/tlstest"
)

// listener is the first one of a file with that backend.
func listener(t *testing.T, protocol, backend, more string) (*Config, *Listener) {
	t.Helper()
	c := mustParse(t, fmt.Sprintf("listeners:\n  - address: 127.0.0.1:0\n    protocol: %s\n    backend: %s\n%s", protocol, backend, more))
	checkRoundTrip(t, c)
	return c, &c.Listeners[0]
}

func TestBackendDefaults(t *testing.T) {
	for _, more := range []string{"", "    backend_options: {}\n", "    backend_options:\n      # timeout: 5s\n"} {
		_, l := listener(t, "imap", "starttls://mail.internal:143", more)
		if l.BackendOptions != defaultBackendOptions() {
			t.Errorf("%q: %+v", more, l.BackendOptions)
		}
		if a, ok := l.Server(); !ok || a != (backend.Address{Scheme: backend.StartTLS, Host: "mail.internal", Port: 143}) || l.Maildir() != "" {
			t.Errorf("server %v, maildir %q", a, l.Maildir())
		}
	}
}

func TestBackendOptionsAreLaidOverTheDefaults(t *testing.T) {
	_, l := listener(t, "lmtp", "tcp://[::1]:24", "    backend_options: {proxy_protocol: v2, xclient: true, timeout: 5s}\n")
	want := defaultBackendOptions()
	want.ProxyProtocol, want.XCLIENT, want.Timeout = ProxyV2, true, 5*time.Second
	if l.BackendOptions != want {
		t.Errorf("%+v", l.BackendOptions)
	}
}

func TestMaildirHasNoBackendOptions(t *testing.T) {
	c, l := listener(t, "smtp", "maildir:m", "    backend_options: {}\n")
	if _, ok := l.Server(); ok || l.BackendOptions != (BackendOptions{}) {
		t.Errorf("%+v", l)
	}
	if printed, _ := c.YAML(); strings.Contains(string(printed), "backend_options") {
		t.Errorf("printed\n%s", printed)
	}
}

func TestTrustedNetworks(t *testing.T) {
	_, l := listener(t, "smtp", "maildir:m",
		"    proxy_protocol: true\n    trusted: [10.0.0.0/8, 192.0.2.1, '2001:db8::/32', '::1', 0.0.0.0/0]\n")
	var want []netip.Prefix
	for _, s := range []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "0.0.0.0/0"} {
		want = append(want, netip.MustParsePrefix(s))
	}
	if got := l.TrustedNetworks(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	if _, l := listener(t, "smtp", "maildir:m", ""); l.TrustedNetworks() != nil {
		t.Error("a PROXY header is expected unasked")
	}
}

func TestLimitsThatDependOnTheProtocol(t *testing.T) {
	for protocol, want := range map[string]struct {
		command, idle time.Duration
		line          Size
	}{
		"smtp":  {5 * time.Minute, 5 * time.Minute, 2 * kiB},
		"lmtp":  {5 * time.Minute, 5 * time.Minute, 2 * kiB},
		"imap":  {time.Minute, 30 * time.Minute, 8 * kiB},
		"pop3":  {time.Minute, 10 * time.Minute, 2 * kiB},
		"sieve": {time.Minute, 10 * time.Minute, 8 * kiB},
		"nntp":  {5 * time.Minute, 5 * time.Minute, 2 * kiB},
		"ftp":   {time.Minute, 15 * time.Minute, 2 * kiB},
	} {
		c, l := listener(t, protocol, "tcp://127.0.0.1:1", "")
		if got := l.Limits; got.Command != want.command || got.Idle != want.idle || got.Line != want.line {
			t.Errorf("%s: %s, %s, %s", protocol, got.Command, got.Idle, got.Line)
		}
		if got := c.Limits; got.Command != 0 || got.Idle != 0 || got.Line != 0 {
			t.Errorf("%s: global %s, %s, %s", protocol, got.Command, got.Idle, got.Line)
		}
	}
	_, l := listener(t, "nntp", "tcp://127.0.0.1:1", "    limits: {command: 10m, line: 0}\nlimits: {line: 4KiB}\n")
	if l.Limits.Idle != 10*time.Minute || l.Limits.Line != 2*kiB {
		t.Errorf("%+v", l.Limits)
	}
	_, l = listener(t, "imap", "tcp://127.0.0.1:1", "limits: {line: 4KiB, command: 2m, idle: 1h}\n")
	if l.Limits.Idle != time.Hour || l.Limits.Line != 4*kiB || l.Limits.Command != 2*time.Minute {
		t.Errorf("%+v", l.Limits)
	}
}

// backendFiles writes an authority and a client certificate, and returns the options that name them.
func backendFiles(t *testing.T) string {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	tlstest.WriteRoots(ca)
	cert, key := tlstest.WritePEM(dir, tlstest.ClientCertificate("gateway"))
	return fmt.Sprintf("    backend_options:\n      ca: %s\n      server_name: %s\n      cert: %s\n      key: %s\n",
		ca, tlstest.ServerName, cert, key)
}

func TestBackendTLSVerifiesAndShowsACertificate(t *testing.T) {
	for _, scheme := range []string{"tls", "starttls"} {
		c, _ := listener(t, "imap", scheme+"://mail.internal:993", backendFiles(t))
		cfg, err := c.BuildBackendTLS(0, quiet, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.MinVersion != tls.VersionTLS12 || cfg.InsecureSkipVerify || cfg.ServerName != tlstest.ServerName {
			t.Errorf("%+v", cfg)
		}
		server := tlstest.ServerConfig()
		server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, tlstest.Roots()
		if err := shakeHands(t, server, cfg); err != nil {
			t.Error(err)
		}
		cfg.RootCAs = nil
		if err := shakeHands(t, server, cfg); err == nil {
			t.Error("whom the system trusts may say anything")
		}
	}
}

func shakeHands(t *testing.T, server, client *tls.Config) error {
	t.Helper()
	server = server.Clone()
	server.SessionTicketsDisabled = true // nobody would read one
	near, far := net.Pipe()
	done := make(chan error)
	go func() {
		err := tls.Server(far, server).Handshake()
		_ = far.Close()
		done <- err
	}()
	err := tls.Client(near, client).Handshake()
	_ = near.Close()
	return errors.Join(err, <-done)
}

func TestBackendWithoutTLSHasNoConfiguration(t *testing.T) {
	for _, to := range []string{"maildir:m", "tcp://127.0.0.1:1"} {
		c, _ := listener(t, "smtp", to, "")
		if cfg, err := c.BuildBackendTLS(0, quiet, time.Now); cfg != nil || err != nil {
			t.Errorf("%s: %v, %v", to, cfg, err)
		}
	}
}

func TestBackendTLSWithoutAuthorityTrustsTheSystem(t *testing.T) {
	c, _ := listener(t, "smtp", "tls://127.0.0.1:1", "")
	cfg, err := c.BuildBackendTLS(0, quiet, time.Now)
	if err != nil || cfg.RootCAs != nil || cfg.ServerName != "" || cfg.Certificates != nil {
		t.Errorf("%+v, %v", cfg, err)
	}
}

func TestFilesOfABackendThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	cert, key := tlstest.WritePEM(dir, tlstest.ClientCertificate("gateway"))
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ options, want string }{
		{"{ca: " + dir + "/none.pem}", ":5:27: listeners[0].backend_options.ca: cannot read " + dir + "/none.pem: no such file or directory; check the path"},
		{"{ca: " + text + "}", ":5:27: listeners[0].backend_options.ca: " + text + " is not PEM; convert it with openssl x509 or openssl pkey, or name another file"},
		{"{ca: " + key + "}", ":5:27: listeners[0].backend_options.ca: " + key + " holds a private key, not a certificate; name the certificate here and the key under key"},
		{
			"{cert: " + cert + ", key: " + cert + "}",
			": listeners[0].backend_options.key: " + cert + " holds a certificate, not a private key; name the key here and the certificate under cert",
		},
	} {
		c, _ := listener(t, "imap", "tls://127.0.0.1:1", "    backend_options: "+tt.options+"\n")
		_, err := c.BuildBackendTLS(0, quiet, time.Now)
		if err == nil || !strings.HasPrefix(err.Error(), "starttlsd.yaml:5:") || !strings.HasSuffix(err.Error(), tt.want) {
			t.Errorf("%v, want %s", err, tt.want)
		}
	}
}

func TestALPNNames(t *testing.T) {
	certs := buildTLS(t, TLS{})
	for protocol, want := range map[string][]string{
		"sieve": {"managesieve"}, "imap": {"imap"}, "ftp": {"ftp", "ftp-data"},
	} {
		if got := certs.ServerConfig(protocol).NextProtos; !slices.Equal(got, want) {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}
