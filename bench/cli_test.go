package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/bench/baseline"
	"starttlsd/bench/load"
	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// bench runs the command in this process, to its end.
func bench(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	status = run(t.Context(), args, &o, &e)
	return status, o.String(), e.String()
}

// hello is what a server has learnt of the last client.
type hello struct {
	sync.Mutex
	*tls.ClientHelloInfo
}

// listenTLS serves the baseline with STARTTLS, which asks for client certificates.
func listenTLS(t *testing.T, last *hello) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := tlstest.ServerConfig()
	cfg.ClientAuth, cfg.ClientCAs = tls.VerifyClientCertIfGiven, tlstest.Roots()
	cfg.GetConfigForClient = func(info *tls.ClientHelloInfo) (*tls.Config, error) {
		last.Lock()
		defer last.Unlock()
		last.ClientHelloInfo = info
		return nil, nil
	}
	s := &baseline.Server{TLS: cfg, NewSession: sessions(discard{})}
	served := make(chan error)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		_ = ln.Close()
		s.Close()
		<-served
	})
	return ln.Addr().String()
}

func TestFlagsReachTheServer(t *testing.T) {
	var last hello
	target := "smtp://" + listenTLS(t, &last)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	tlstest.WriteRoots(ca)
	cert, key := tlstest.WritePEM(dir, tlstest.ClientCertificate("alice"))
	result := filepath.Join(dir, "result.json")
	status, stdout, stderr := bench(t, "-target", target, "-upgrades", "3", "-connections", "2", "-tls", "1.2", "-groups", "P-256, X25519",
		"-ca", ca, "-sni", tlstest.ServerName, "-cert", cert, "-key", key, "-json", result, "-report", filepath.Join(dir, "report"))
	if status != exitOK || stderr != "" || !strings.Contains(stdout, "3 upgrades") {
		t.Fatalf("status %d: %s%s", status, stdout, stderr)
	}
	if last.ServerName != tlstest.ServerName || !slices.Equal(last.SupportedVersions, []uint16{tls.VersionTLS12}) ||
		!slices.Contains(last.SupportedCurves, tls.CurveP256) || slices.Contains(last.SupportedCurves, tls.X25519MLKEM768) {
		t.Errorf("%s, versions %x, groups %v", last.ServerName, last.SupportedVersions, last.SupportedCurves)
	}
	text, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	var res load.Result
	if err := json.Unmarshal(text, &res); err != nil || res.Done != 3 || res.Latency.Count() != 3 {
		t.Errorf("%+v, %v", res, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "report", "index.html")); err != nil {
		t.Error(err)
	}
}

func TestHostIsAskedForThoughItIsNotVerified(t *testing.T) {
	var last hello
	_, port, _ := net.SplitHostPort(listenTLS(t, &last))
	if status, stdout, stderr := bench(t, "-target", "smtp://localhost:"+port, "-upgrades", "1"); status != exitOK {
		t.Fatalf("%s%s", stdout, stderr)
	}
	if last.ServerName != "localhost" {
		t.Errorf("asked for %q", last.ServerName)
	}
}

func TestJSONToStandardOutputIsAlone(t *testing.T) {
	var last hello
	status, stdout, _ := bench(t, "-target", "smtp://"+listenTLS(t, &last), "-upgrades", "1", "-json", "-")
	var res load.Result
	if err := json.Unmarshal([]byte(stdout), &res); err != nil || status != exitOK {
		t.Errorf("%v: %s", err, stdout)
	}
}

func TestFailedOperationsAreToldByTheStatus(t *testing.T) {
	var last hello
	target := "smtp://" + listenTLS(t, &last)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	tlstest.WriteRoots(ca)
	status, stdout, _ := bench(t, "-target", target, "-upgrades", "2", "-ca", ca, "-sni", "other.example")
	if status != exitFailed || !strings.Contains(stdout, "2 × handshake") {
		t.Errorf("status %d: %s", status, stdout)
	}
}

func TestWrongFlagsAreExplained(t *testing.T) {
	here := []string{"-target", "smtp://127.0.0.1:1"}
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "-target is missing"},
		{[]string{"-target", "gopher://a"}, "smtp, smtps"},
		{append(here, "more"), "unexpected argument"},
		{append(here, "-mode", "swim"), "upgrade, hold, chat, mail, storm or transfer"},
		{append(here, "-tls", "1.1"), "use 1.2 or 1.3"},
		{append(here, "-groups", "X448"), "X25519MLKEM768"},
		{append(here, "-hold", "5", "-mode", "mail"), "does not go with"},
		{append(here, "-hold", "1000000000"), "ulimit -n"},
		{append(here, "-ca", "/dev/null"), "no certificate"},
		{append(here, "-ca", "x", "-insecure"), "contradict"},
		{append(here, "-cert", "x"), "go together"},
		{append(here, "-rate", "1e10"), "use 0.001 to 1000000"},
		{append(here, "-rate", "NaN"), "use 0.001 to 1000000"},
		{append(here, "-json", "/dev/null/x"), "-json: "},
		{append(here, "-report", "/dev/null/x"), "-report: "},
		{append(here, "-connections", "many"), "invalid value"},
		{[]string{"baseline", "-maildir", "", "-address", "256.0.0.1:x"}, "cannot listen"},
		{[]string{"stub", "-listen", "256.0.0.1:x"}, "cannot listen"},
		{[]string{"stub", "-size", "0"}, "-size: use 1 to"},
		{[]string{"relay", "-rounds", "0"}, "out of range"},
		{[]string{"ftp", "-mib", "-1"}, "out of range"},
		{[]string{"ftp", "more"}, "not a flag"},
		{append(here, "-mode", "transfer"), "not possible with smtp"},
		{append(here, "-file", "x"), "for transfers with ftp"},
		{[]string{"-target", "imap://127.0.0.1:1", "-mode", "transfer"}, "needs a user and a password"},
	} {
		status, _, stderr := bench(t, test.args...)
		if status != exitUsage || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: status %d, %q", test.args, status, stderr)
		}
	}
	if status, _, stderr := bench(t, "-help"); status != exitOK || !strings.Contains(stderr, "-upgrades") {
		t.Errorf("-help: status %d, %q", status, stderr)
	}
}

// lines is written by a server that is running.
type lines struct {
	sync.Mutex
	bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.Lock()
	defer l.Unlock()
	return l.Buffer.Write(p)
}

func (l *lines) find(re *regexp.Regexp) []string {
	l.Lock()
	defer l.Unlock()
	return re.FindStringSubmatch(l.Buffer.String())
}

// serving runs the baseline command until the test is over.
func serving(t *testing.T, args ...string) (addr string) {
	t.Helper()
	return background(t, `msg=listening address=(\S+)`, append([]string{"baseline", "-address", "127.0.0.1:0"}, args...)...)
}

// background runs a command that serves, until the test is over, and returns the
// address that it says by what listening finds.
func background(t *testing.T, listening string, args ...string) (addr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var log lines
	status := make(chan int)
	go func() {
		status <- run(ctx, args, &log, &log)
	}()
	t.Cleanup(func() {
		cancel()
		if s := <-status; s != exitOK {
			t.Errorf("%q: status %d", args, s)
		}
	})
	said := regexp.MustCompile(listening)
	enginetest.Eventually(t, "listening", func() bool { return log.find(said) != nil })
	return log.find(said)[1]
}

func TestStubTakesAndGivesMessages(t *testing.T) {
	addr := background(t, `listening on (\S+)`, "stub", "-listen", "127.0.0.1:0", "-size", "70000")
	common := []string{"-target", "imap://" + addr, "-plain", "-user", "u", "-password", "p", "-connections", "3"}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-mode", "transfer", "-operations", "20", "-size", "70000"}, "1.3 MiB, "},
		{[]string{"-mode", "transfer", "-operations", "20", "-size", "5000", "-upload"}, "97.7 KiB, "},
		{[]string{"-mode", "hold", "-duration", "50ms", "-quiet"}, "3 connections"},
		{[]string{"-mode", "chat", "-operations", "20"}, "20 commands"},
	} {
		if status, stdout, stderr := bench(t, append(test.args, common...)...); status != exitOK || !strings.Contains(stdout, test.want) {
			t.Errorf("%q: status %d, %s%s", test.args, status, stdout, stderr)
		}
	}
}

func TestBaselineServes(t *testing.T) {
	dir := t.TempDir()
	addr := serving(t, "-maildir", dir)
	for _, args := range [][]string{
		{"-upgrades", "20"},
		{"-mode", "mail", "-operations", "20", "-connections", "4", "-size", "20000"},
		{"-mode", "chat", "-operations", "500", "-connections", "2"},
		{"-mode", "chat", "-operations", "500", "-connections", "2", "-plain"},
		{"-hold", "5", "-size", "16384", "-duration", "50ms"},
	} {
		if status, stdout, stderr := bench(t, append(args, "-target", "smtp://"+addr)...); status != exitOK {
			t.Errorf("%q: %s%s", args, stdout, stderr)
		}
	}
	if messages := enginetest.Maildir(t, dir); len(messages) != 20 {
		t.Errorf("%d messages arrived", len(messages))
	}
}

func TestBaselineServesImplicitTLS(t *testing.T) {
	addr := serving(t, "-implicit")
	if status, stdout, stderr := bench(t, "-target", "smtps://"+addr, "-upgrades", "20"); status != exitOK {
		t.Errorf("%s%s", stdout, stderr)
	}
}

func TestBaselineRefusesWhatIsBehindSTARTTLS(t *testing.T) {
	nc, err := net.Dial("tcp", serving(t))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(time.Minute))
	if err := talk(nc, "", "220 "); err != nil {
		t.Fatal(err)
	}
	if err := talk(nc, "EHLO a.example\r\n", "250 "); err != nil {
		t.Fatal(err)
	}
	if err := talk(nc, "STARTTLS\r\nNOOP\r\n", "5"); err != nil {
		t.Error(err)
	}
}
