package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// served is the first name in the certificate that a new client gets.
func certificateAt(t *testing.T, addr string) string {
	t.Helper()
	c, err := enginetest.DialSTARTTLS(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	state, _ := c.TLSConnectionState()
	return state.PeerCertificates[0].DNSNames[0]
}

func TestReloadAddsRemovesAndChangesListenersUnderTheirSessions(t *testing.T) {
	stays, goes, comes := freeAddress(t), freeAddress(t), freeAddress(t)
	p := enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" + listener(stays, "./drop") + listener(goes, "./drop")})
	onStays, onGoes := connect(t, enginetest.DialSTARTTLS, stays), connect(t, enginetest.Dial, goes)

	p.Reload("hostname: other.example\nlisteners:\n" + listener(comes, "./drop2") + listener(stays, "./drop"))
	if _, err := net.Dial("tcp", goes); err == nil {
		t.Error("the removed listener accepts")
	}
	onNew := connect(t, enginetest.DialSTARTTLS, comes)
	onNew.deliver(message)
	onNew.quit()
	if got := len(enginetest.Maildir(t, filepath.Join(p.Dir, "drop2"))); got != 1 {
		t.Errorf("%d messages at the new listener", got)
	}
	for _, c := range []client{onStays, onGoes} { // they go on as they began, and may still upgrade
		if err := c.Noop(); err != nil {
			t.Error(err)
		}
	}
	if err := onGoes.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Error(err)
	}
	onStays.deliver(message)
	onGoes.deliver(message)
	checkDelivered(t, p, message, message)
	young, err := net.Dial("tcp", stays)
	if err != nil {
		t.Fatal(err)
	}
	defer young.Close()
	if line, err := textproto.NewReader(bufio.NewReader(young)).ReadLine(); !strings.HasPrefix(line, "220 other.example ") {
		t.Errorf("new sessions are greeted with %q, %v", line, err)
	}
	onStays.quit()
	onGoes.quit()
	_ = young.Close()
	checkStatus(t, p.Stop(), exitOK)
}

func TestBadReloadChangesNothing(t *testing.T) {
	addr := freeAddress(t)
	good := "listeners:\n" + listener(addr, "./drop")
	p := enginetest.Start(t, enginetest.Config{YAML: good, Expect: regexp.MustCompile("RELOAD FAILED, nothing has changed")})
	c := connect(t, enginetest.DialSTARTTLS, addr)
	busy := occupy(t)
	for _, bad := range []string{
		"listeners: []\n",
		good + "nonsense: 1\n",
		good + listener(busy, "./drop") + listener(freeAddress(t), "./drop"),
		good + listener(freeAddress(t), "./missing/parent/drop"),
		certificates("/nowhere/cert.pem", "/nowhere/key.pem") + good,
	} {
		p.Reload(bad)
		connect(t, enginetest.DialSTARTTLS, addr).quit()
	}
	if n := strings.Count(p.Log(), "RELOAD FAILED"); n != 5 {
		t.Errorf("%d of 5 refused", n)
	}
	c.deliver(message)
	c.quit()
	p.Reload(good)
	checkStatus(t, p.Stop(), exitOK)
}

func TestReloadTellsWhatOnlyAHandOverChanges(t *testing.T) {
	addr := freeAddress(t)
	good := "listeners:\n" + listener(addr, "./drop")
	p := enginetest.Start(t, enginetest.Config{YAML: good})
	p.Reload(good + "limits: {handshakes_computing: 3}\n")
	logged(t, p, "key=limits.handshakes_computing")
	p.HandOver()
	logged(t, p, "stopped")
	connect(t, enginetest.DialSTARTTLS, addr).quit()
	p.Stop()
}

// pairFiles writes a new certificate's files and returns their names.
func pairFiles(t *testing.T, name string) (cert, key string) {
	t.Helper()
	return tlstest.WritePEM(t.TempDir(), tlstest.Certificate(name))
}

func replace(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// within fails unless f has become true a second after now.
func within(t *testing.T, what string, f func() bool) {
	t.Helper()
	began := time.Now()
	enginetest.Eventually(t, what, f)
	if took := time.Since(began); took > time.Second+machineSlack {
		t.Errorf("%s took %v", what, took)
	}
}

const machineSlack = 2 * time.Second // of a busy machine, on top of the second that is promised

func TestCertificateChangesWithItsFiles(t *testing.T) {
	dir := t.TempDir()
	live := func(version string) string { return filepath.Join(dir, version) }
	for _, v := range []string{"one", "two", "three"} {
		if err := os.Mkdir(live(v), 0o700); err != nil {
			t.Fatal(err)
		}
		tlstest.WritePEM(live(v), tlstest.Certificate(v+".example"))
	}
	// As Kubernetes does it: what is named is a link into a directory that is a link.
	names := []string{}
	for _, file := range []string{"cert.pem", "key.pem"} {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.Join(dir, file))
	}
	point := func(version string) {
		if err := os.Symlink(version, filepath.Join(dir, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	point("one")
	p := enginetest.Start(t, enginetest.Config{
		YAML:   certificates(names[0], names[1]) + "listeners:\n" + listener("127.0.0.1:0", "./drop"),
		Expect: regexp.MustCompile("CANNOT USE THE NEW FILE, the old one stays in force"),
	})
	addr := p.Addrs[0]
	session := connect(t, enginetest.DialSTARTTLS, addr)
	is := func(want string) func() bool { return func() bool { return certificateAt(t, addr) == want } }
	if !is("one.example")() {
		t.Error("not the first")
	}
	point("two")
	within(t, "a link exchanged", is("two.example"))

	cert3, key3 := filepath.Join(live("three"), "cert.pem"), filepath.Join(live("three"), "key.pem")
	replace(t, key3, filepath.Join(live("two"), "key.pem"))
	time.Sleep(700 * time.Millisecond) // the key alone is not served
	if !is("two.example")() {
		t.Error("key and certificate of different times")
	}
	replace(t, cert3, filepath.Join(live("two"), "cert.pem"))
	within(t, "files renamed over, a moment apart", is("three.example"))
	if strings.Contains(p.Log(), "CANNOT USE") {
		t.Error("a moment is no trouble")
	}

	if err := os.WriteFile(filepath.Join(live("two"), "cert.pem"), []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	logged(t, p, "CANNOT USE THE NEW FILE, the old one stays in force")
	p.Signal(syscall.SIGHUP)
	logged(t, p, "msg=reloaded")
	if !is("three.example")() {
		t.Error("a bad file is in force")
	}
	replace(t, filepath.Join(live("one"), "cert.pem"), filepath.Join(live("two"), "cert.pem"))
	replace(t, filepath.Join(live("one"), "key.pem"), filepath.Join(live("two"), "key.pem"))
	within(t, "good files after bad ones", is("one.example"))
	if n := strings.Count(p.Log(), "CANNOT USE"); n != 1 {
		t.Errorf("told %d times", n)
	}
	session.quit()
}

func TestClientAuthoritiesChangeWithTheirFile(t *testing.T) {
	dir := t.TempDir()
	ca, other := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "other.pem")
	tlstest.WriteRoots(ca)
	stranger, _ := pairFiles(t, "stranger.example")
	replace(t, stranger, other)
	p := enginetest.Start(t, enginetest.Config{
		YAML: fmt.Sprintf("tls: {client_auth: require, client_ca: %q}\nlisteners:\n%s", ca, listener("127.0.0.1:0", "./drop")),
	})
	clientCert := tlstest.ClientCertificate("alice")
	cache := tls.NewLRUClientSessionCache(4)
	enter := func() error {
		c, err := enginetest.Dial(p.Addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cfg := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{clientCert}, ClientSessionCache: cache, ServerName: "mx"}
		if err := c.StartTLS(cfg); err != nil {
			return err
		}
		if err := enginetest.Deliver(c, message); err != nil {
			return err
		}
		return c.Quit()
	}
	for range 2 {
		if err := enter(); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range enginetest.Maildir(t, filepath.Join(p.Dir, "drop")) {
		if !strings.Contains(string(m), ", client certificate of alice)") {
			t.Errorf("the trace header is silent: %.300s", m)
		}
	}
	logged(t, p, "client=alice")
	replace(t, other, ca)
	within(t, "the old authority out", func() bool { return enter() != nil })
	tlstest.WriteRoots(ca)
	within(t, "the old authority in again", func() bool { return enter() == nil })
}
