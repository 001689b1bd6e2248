package peers

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"starttlsd/bench/load"
)

// gnet has goroutines from the start.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

func testLab(t *testing.T) *lab {
	t.Helper()
	l, err := newLab(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.close)
	return l
}

func TestAllHaveTheSameCertificateOnP256(t *testing.T) {
	l := testLab(t)
	pair, err := tls.LoadX509KeyPair(l.cert, l.key)
	if err != nil {
		t.Fatal(err)
	}
	if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is %T", pair.PrivateKey)
	}
	cfg, err := l.ownTLS() // also: our configuration can be loaded
	if err != nil {
		t.Fatal(err)
	}
	cert, err := cfg.GetCertificate(&tls.ClientHelloInfo{ServerName: hostname})
	if err != nil || !cert.Leaf.Equal(pair.Leaf) {
		t.Errorf("starttlsd has another one: %v", err)
	}
}

func TestConfigurations(t *testing.T) {
	s := settings{Dir: "/D", Cert: "/c", Key: "/k", Addr: "127.0.0.1:99", Host: "127.0.0.1", Port: "99",
		Hostname: hostname, Descriptors: 20000, User: "jo", Group: "staff", Module: "/m.so", Backend: "127.0.0.1:98"}
	s.Files = "/F"
	root, secure := s, s
	secure.Secure = true
	root.Root = true
	static := s
	static.Module = ""
	for _, test := range []struct {
		name, text string
		s          settings
		want, not  []string
	}{
		{"nginx", nginxConfig, s, []string{"load_module /m.so;\n", "listen 127.0.0.1:99;", "starttls on;",
			"ssl_certificate_key /k;", "ssl_ecdh_curve X25519;", "pid /D/pid;"}, nil},
		{"nginx with its mail module inside", nginxConfig, static, nil, []string{"load_module"}},
		{"stunnel", stunnelConfig, s, []string{"connect = 127.0.0.1:98\n", "protocol = smtp\n", "curves = X25519\n"}, nil},
		{"postfix", postfixConfig, root, []string{"queue_directory = /D/spool\n", "local_transport = discard\n",
			"smtpd_tls_cert_file = /c\n"}, nil},
		{"postfix's services", postfixServices, root, []string{"127.0.0.1:99 inet "}, nil},
		{"dovecot", dovecotConfig, root, []string{"base_dir = /D/run\n", "port = 99\n", "client_limit = 15000\n"},
			[]string{"default_login_user"}},
		{"vsftpd behind", vsftpdConfig, s, []string{"listen_port=99\n", "anon_root=/F\n", "secure_chroot_dir=/D/empty\n"}, []string{"ssl"}},
		{"vsftpd", vsftpdConfig, secure, []string{"rsa_private_key_file=/k\n", "require_ssl_reuse=YES\n"}, nil},
		{"starttlsd with files", ownFTPConfig, s, []string{`address: "127.0.0.1:99"`, `backend: "tcp://127.0.0.1:98"`}, nil},
		{"dovecot of a user", dovecotConfig, s, []string{"default_login_user = jo\n", "default_internal_group = staff\n"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			conf, err := test.s.fill(test.text)
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range test.want {
				if !strings.Contains(string(conf), w) {
					t.Errorf("no %q in\n%s", w, conf)
				}
			}
			for _, n := range append(test.not, "<no value>", "{{") {
				if strings.Contains(string(conf), n) {
					t.Errorf("%q in\n%s", n, conf)
				}
			}
		})
	}
}

func TestNginxModuleIsFoundWhereNginxSays(t *testing.T) {
	dir := t.TempDir()
	module := filepath.Join(dir, "ngx_mail_module.so")
	if err := os.WriteFile(module, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := nginxModule("configure arguments: --prefix=/x --modules-path=" + dir + " --with-mail=dynamic"); got != module || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := nginxModule("configure arguments: --with-mail --with-mail_ssl_module"); got != "" || err != nil {
		t.Errorf("built in: %q, %v", got, err)
	}
}

func TestQuickGivesWayToOtherFlags(t *testing.T) {
	o, err := parse([]string{"-quick", "-rounds", "3"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.rounds != 3 || o.upgrades != 200 {
		t.Errorf("%+v", o)
	}
	for _, args := range [][]string{{"-loads", "upgrade,nap"}, {"-servers", ""}, {"-rounds", "0"}, {"more"}} {
		if _, err := parse(args, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
}

func TestAsManyAreHeldAtATimeAsThereAreDescriptors(t *testing.T) {
	b := &bout{options: &options{connections: 4000, servers: "starttlsd,nginx,stunnel,postfix"}}
	names := []string{own, "goroutine", "nginx", "postfix", "stunnel"}
	for room, want := range map[int]string{
		20_000: "[[starttlsd nginx postfix stunnel]]",
		8_200:  "[[starttlsd nginx postfix] [stunnel]]",
		100:    "[[starttlsd] [nginx] [postfix] [stunnel]]", // it will be told
	} {
		if got := fmt.Sprint(b.batches(names, room)); got != want {
			t.Errorf("%d: %s, want %s", room, got, want)
		}
	}
}

func TestFloor(t *testing.T) {
	cfg, err := testLab(t).ownTLS()
	if err != nil {
		t.Fatal(err)
	}
	each, err := Floor(20, cfg, clientTLS())
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil || each < 10*time.Microsecond || each > time.Second {
		t.Errorf("%v, %v", each, err)
	}
	old := clientTLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, err := Floor(1, cfg, old); err == nil {
		t.Error("a failed handshake is no error")
	}
}

func TestStopEndsTheWholeGroup(t *testing.T) {
	t.Parallel() // it takes stopTime, because sh does not end what it has started
	pid, exited, err := launch(t.TempDir(), "sh", "-c", "sleep 100 & sleep 100")
	if err != nil {
		t.Fatal(err)
	}
	(&Server{PID: pid}).Stop()
	<-exited
	if err := syscall.Kill(-pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("still there: %v", err)
	}
}

func TestAProgramThatDoesNotStartTellsWhy(t *testing.T) {
	s, err := testLab(t).settle("sh")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.foreground(t.Context(), s.server("sh", ""), "sh", "-c", "echo no such luck >&2; exit 1")
	if err == nil || !strings.Contains(err.Error(), "it has ended: no such luck") {
		t.Error(err)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
}

func TestInteropPeersUpgradeAndLeaveNothing(t *testing.T) {
	if os.Getenv("STARTTLSD_INTEROP") != "1" {
		t.Skip("starts other servers: set STARTTLSD_INTEROP=1")
	}
	l := testLab(t)
	b := &bout{lab: l, res: new(Results), log: io.Discard}
	for _, c := range contestants {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "postfix" && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			s, err := c.start(t.Context(), l)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Stop()
			r, err := b.measure(t.Context(), s, load.Options{Mode: load.Upgrade, Operations: 50, Connections: 8})
			if err != nil {
				t.Fatal(err)
			}
			if r.Done != 50 || !strings.Contains(r.TLS, "X25519") || strings.Contains(r.TLS, "MLKEM") {
				t.Errorf("%d upgrades, %s", r.Done, r.TLS)
			}
			if r.Server == nil || r.Server.CPU == 0 || r.Server.PSSBefore == 0 {
				t.Errorf("its processes were not measured: %+v", r.Server)
			}
			s.Stop()
			if left := processesIn(l.dir); len(left) > 0 {
				t.Errorf("processes left: %q", left)
			}
			if left, _ := filepath.Glob(filepath.Join(l.dir, "*", "*")); len(left) > 0 {
				t.Errorf("files left: %q", left)
			}
		})
	}
}

// processesIn are those that work in dir, or name it in their command line.
func processesIn(dir string) (found []string) {
	names, _ := filepath.Glob("/proc/[0-9]*")
	for _, name := range names {
		cwd, _ := os.Readlink(name + "/cwd")
		command, _ := os.ReadFile(name + "/cmdline")
		if strings.HasPrefix(cwd, dir) || strings.Contains(string(command), dir) {
			found = append(found, string(command))
		}
	}
	return found
}
