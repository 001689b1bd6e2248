package main

import (
	"fmt"
	"strings"
	"testing"

	imapstub "starttlsd/bench/stub"
	"starttlsd/engine/enginetest"
)

// TestCheckDialsTheBackends as a session would, where that is asked for.
func TestCheckDialsTheBackends(t *testing.T) {
	behind, err := imapstub.New(1 << 10)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(behind.Close)
	gone := freeAddress(t)
	relay := func(to string) string {
		return fmt.Sprintf("  - {address: \"127.0.0.1:0\", protocol: imap, backend: \"tcp://%s\"}\n", to)
	}
	good := enginetest.WriteFile(t, "good.yaml", "listeners:\n"+relay(behind.Addr()))
	bad := enginetest.WriteFile(t, "bad.yaml", "listeners:\n"+relay(gone)+relay(behind.Addr()))

	status, stdout, stderr := command("-check", "-dial", "-config", good)
	if status != exitOK || !strings.Contains(stdout, "the backend answers\n") || stderr != "" {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	status, stdout, stderr = command("-check", "-dial", "-config", bad)
	if status != exitUsage || !strings.Contains(stdout, "the backend answers\n") ||
		!strings.HasPrefix(stderr, "starttlsd: 1 of the backends cannot be used, see above: backend tcp://"+gone) || strings.Count(stderr, "\n") != 1 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if status, _, _ := command("-check", "-config", bad); status != exitOK {
		t.Error("a backend was dialled that nobody asked for")
	}
	if status, _, stderr := command("-dial"); status != exitUsage || !strings.Contains(stderr, "-dial is for -check") {
		t.Errorf("status %d, %q", status, stderr)
	}
}

// TestCheckSeesAPROXYHeaderThatWasNotExpected, though an FTP server has greeted before.
func TestCheckSeesAPROXYHeaderThatWasNotExpected(t *testing.T) {
	s := startFTPServer(t)
	s.reply = func(line, text string) string {
		if strings.HasPrefix(line, "PROXY ") {
			return "500 what?\r\n"
		}
		return text
	}
	for header, want := range map[string]int{"none": exitOK, "v1": exitUsage} {
		file := enginetest.WriteFile(t, "ftp.yaml", fmt.Sprintf(
			"listeners:\n  - {address: '127.0.0.1:0', protocol: ftp, backend: 'tcp://%s', backend_options: {proxy_protocol: %s}}\n", s.addr, header))
		status, stdout, stderr := command("-check", "-dial", "-config", file)
		if status != want || strings.Contains(stdout, "does it expect a PROXY header") != (want != exitOK) {
			t.Errorf("%s: status %d, %q, %q", header, status, stdout, stderr)
		}
	}
}

func TestCheckSaysWhatWouldBeDone(t *testing.T) {
	cert, key := pairFiles(t, "mx.example")
	file := enginetest.WriteFile(t, "c.yaml", fmt.Sprintf(`
hostname: mx.example
tls: {certificates: [{cert: %q, key: %q}], session_tickets: {keys: "redis://:sesame@127.0.0.1:1/0", off: true}}
listeners:
  - {address: "127.0.0.1:0", protocol: smtp, require_tls: true, backend: "maildir:./drop"}
limits: {max_connections: 100}
admin: {address: "127.0.0.1:9625"}
`, cert, key))
	_, stdout, stderr := command("-check", "-config", file)
	for _, want := range []string{
		"mx.example", cert + ": mx.example, until 2099-01-01", "the chain is not one that this system trusts", "intermediate",
		"session tickets: off", "at most 100: configured", "http://127.0.0.1:9625/", "smtp on 127.0.0.1:0, starttls (required), to maildir:./drop",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not said in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout+stderr, "sesame") {
		t.Error("a password is shown")
	}
}
