package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

var message = []byte("Subject: hello\r\n\r\nIt works.\r\n")

// start runs the command with one listener that delivers into ./drop. more is
// added to its configuration.
func start(t *testing.T, more string) *enginetest.Process {
	t.Helper()
	return enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" + listener("127.0.0.1:0", "./drop") + more})
}

// client is a session whose every step has to go well.
type client struct {
	*smtp.Client
	t *testing.T
}

type dialer func(addr string) (*smtp.Client, error)

func connect(t *testing.T, dial dialer, addr string) client {
	t.Helper()
	c, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return client{c, t}
}

func (c client) deliver(content []byte) {
	c.t.Helper()
	if err := enginetest.Deliver(c.Client, content); err != nil {
		c.t.Error("delivery:", err)
	}
}

func (c client) quit() {
	c.t.Helper()
	if err := c.Quit(); err != nil {
		c.t.Error("QUIT:", err)
	}
}

// refused reads a reply that nobody asked for and the end of the connection.
func (c client) refused(want string) {
	c.t.Helper()
	if line, err := c.Text.ReadLine(); !strings.HasPrefix(line, want) {
		c.t.Errorf("got %q, %v; want %q", line, err, want)
	}
	if line, err := c.Text.ReadLine(); !errors.Is(err, io.EOF) {
		c.t.Errorf("behind the last reply: %q, %v", line, err)
	}
}

func checkStatus(t *testing.T, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("exit status %d, want %d", got, want)
	}
}

// logged waits for a text in the log.
func logged(t *testing.T, p *enginetest.Process, text string) {
	t.Helper()
	enginetest.Eventually(t, text+" in the log", func() bool { return strings.Contains(p.Log(), text) })
}

func checkDelivered(t *testing.T, p *enginetest.Process, want ...[]byte) {
	t.Helper()
	stored := enginetest.Maildir(t, filepath.Join(p.Dir, "drop"))
	if len(stored) != len(want) {
		t.Errorf("%d messages are delivered, not %d", len(stored), len(want))
	}
	for _, content := range want {
		found := false
		for _, m := range stored {
			found = found || bytes.Equal(enginetest.Content(m), content)
		}
		if !found {
			t.Errorf("%.60q is not in the Maildir as it was sent", content)
		}
	}
}

func TestSystemWithoutAFileSaysHowToTryIt(t *testing.T) {
	addrs := []string{"127.0.0.1:2525", "127.0.0.1:2465"}
	for _, addr := range addrs {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skip("the default ports are in use:", err)
		}
		_ = ln.Close()
	}
	p := enginetest.Start(t, enginetest.Config{})
	logged(t, p, "try it: ")
	_, command, _ := strings.Cut(p.Log(), "try it: ")
	command, _, _ = strings.Cut(command, "\"")
	if !strings.Contains(command, "smtp://"+addrs[0]) || !strings.HasSuffix(command, "cat maildir/new/*") ||
		strings.Contains(command, `\`) { // that pasted, it would not be the command that was meant
		t.Errorf("this does not say how to try it: %s", command)
	}
	for i, dial := range []dialer{enginetest.DialSTARTTLS, enginetest.DialImplicit} {
		c := connect(t, dial, addrs[i])
		c.deliver(message)
		c.quit()
	}
	if n := len(enginetest.Maildir(t, filepath.Join(p.Dir, "maildir"))); n != 2 {
		t.Errorf("%d messages in ./maildir", n)
	}
	checkStatus(t, p.Stop(), exitOK)
}

func TestSystemSelfSignedFingerprintIsThatOfTheCertificateServed(t *testing.T) {
	p := enginetest.Start(t, enginetest.Config{YAML: "listeners:\n" +
		listener("127.0.0.1:0", "./drop") +
		strings.Replace(listener("127.0.0.1:0", "./drop"), "{", "{tls: implicit, ", 1)})
	for i, dial := range []dialer{enginetest.DialSTARTTLS, enginetest.DialImplicit} {
		c := connect(t, dial, p.Addrs[i])
		if i == 1 {
			_ = c.Hello("localhost")
		}
		state := tlsState(t, c)
		sum := sha256.Sum256(state.PeerCertificates[0].Raw)
		if want := "sha256=" + strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":"); strings.Count(p.Log(), want) != 1 {
			t.Errorf("listener %d: %s is not what was logged", i, want)
		}
		c.quit()
	}
}

func TestSystemExpiredCertificateIsALoudWarning(t *testing.T) {
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Expired(tlstest.ServerName))
	p := start(t, certificates(cert, key))
	if !strings.Contains(p.Log(), "level=WARN") || !strings.Contains(p.Log(), "HAS EXPIRED") || !strings.Contains(p.Log(), cert) {
		t.Errorf("no warning: %s", p.Log())
	}
	c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	c.deliver(message)
	c.quit()
	if err := connect(t, enginetest.Dial, p.Addrs[0]).StartTLS(tlstest.ClientConfig()); err == nil {
		t.Error("the certificate is not the expired one")
	}
	checkDelivered(t, p, message)
}

func TestSystemDrainClosesTheListenerAndLetsSessionsFinish(t *testing.T) {
	p := start(t, "")
	c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	body, err := enginetest.Begin(c.Client)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = body.Write(message)
	p.Signal(syscall.SIGTERM)
	logged(t, p, "draining")
	enginetest.Eventually(t, "the listener closed", func() bool {
		nc, err := net.Dial("tcp", p.Addrs[0])
		if err == nil {
			_ = nc.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if err := body.Close(); err != nil {
		t.Error("the message in flight:", err)
	}
	c.deliver([]byte("Subject: one more\r\n\r\n"))
	c.quit()
	_ = c.Close()
	checkStatus(t, p.Wait(), exitOK)
	checkDelivered(t, p, message, []byte("Subject: one more\r\n\r\n"))
}

func TestSystemDrainTimeEndsWithGoodbyes(t *testing.T) {
	const drain = time.Second
	p := start(t, "drain: 1s\n")
	plain, secure := connect(t, enginetest.Dial, p.Addrs[0]), connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	busy := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	body, err := enginetest.Begin(busy.Client)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = body.Write(message)
	began := time.Now()
	p.Signal(syscall.SIGTERM)
	for _, c := range []client{plain, secure} {
		c.refused("421 4.3.2 ")
		if d := time.Since(began); d < drain {
			t.Errorf("ended after %v, before the drain time was over", d)
		}
		_ = c.Close()
	}
	_ = busy.Close()
	checkStatus(t, p.Wait(), exitFailed)
	checkDelivered(t, p)
}

func TestSystemSecondSignalEndsNow(t *testing.T) {
	p := start(t, "drain: 10m\n")
	connect(t, enginetest.Dial, p.Addrs[0])
	connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	p.Signal(syscall.SIGINT)
	logged(t, p, "draining")
	select {
	case <-p.Exited():
		t.Error("the first signal did not leave the sessions alone")
	case <-time.After(50 * time.Millisecond):
	}
	checkStatus(t, p.Stop(), exitFailed) // Stop waits for less than the drain time
}

func TestSystemLogIsJSONAndHoldsNoSecret(t *testing.T) {
	pair := tlstest.Certificate(tlstest.ServerName)
	cert, key := tlstest.WritePEM(t.TempDir(), pair)
	p := start(t, "log: {format: json, level: debug}\n"+certificates(cert, key))
	const credentials, content = "AHVzZXIAaHVudGVyMg==", "the content of a message"
	c := connect(t, enginetest.DialSTARTTLS, p.Addrs[0])
	reply(t, c, 502, "AUTH PLAIN "+credentials)
	c.deliver([]byte("Subject: " + content + "\r\n\r\n" + content + "\r\n"))
	c.quit()
	injecting := connect(t, enginetest.Dial, p.Addrs[0])
	reply(t, injecting, 554, "STARTTLS\r\nAUTH PLAIN "+credentials)
	garbage := connect(t, enginetest.Dial, p.Addrs[0])
	reply(t, garbage, 220, "STARTTLS")
	_ = garbage.Text.PrintfLine(credentials)
	_, _ = garbage.Text.ReadLine()
	for _, c := range []client{c, injecting, garbage} {
		_ = c.Close() // else the drain waits for it
	}
	logged(t, p, "handshake failed")
	checkStatus(t, p.Stop(), exitOK)

	checkJSONLines(t, p.Log(), "listening", "connection", "plaintext behind STARTTLS, closing", "handshake failed", "stopped")
	secrets := []string{credentials, content, "alice@example.org", "bob@example.org"}
	for line := range strings.Lines(string(must(os.ReadFile(key)))) {
		secrets = append(secrets, strings.TrimSpace(line))
	}
	for _, secret := range secrets {
		if strings.Contains(p.Log(), secret) {
			t.Errorf("%q is in the log:\n%s", secret, p.Log())
		}
	}
}

// checkJSONLines wants a JSON object with time, level and message on every line,
// and each of the messages at least once.
func checkJSONLines(t *testing.T, log string, messages ...string) {
	t.Helper()
	seen := make(map[string]bool)
	for line := range strings.Lines(log) {
		var entry struct {
			Time       time.Time
			Level, Msg string
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time.IsZero() || entry.Level == "" {
			t.Errorf("%q: %v", line, err)
		}
		seen[entry.Msg] = true
	}
	for _, m := range messages {
		if !seen[m] {
			t.Errorf("no line %q in\n%s", m, log)
		}
	}
}

// reply sends a command and wants a reply with code.
func reply(t *testing.T, c client, code int, command string) {
	t.Helper()
	if err := c.Text.PrintfLine("%s", command); err != nil {
		t.Fatal(err)
	}
	var e *textproto.Error
	if _, _, err := c.Text.ReadResponse(code); err != nil && !errors.As(err, &e) {
		t.Fatal(err)
	} else if err != nil {
		t.Errorf("%s: %v, want %d", command, err, code)
	}
}

func tlsState(t *testing.T, c client) tls.ConnectionState {
	t.Helper()
	state, ok := c.TLSConnectionState()
	if !ok {
		t.Fatal("no TLS")
	}
	return state
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
