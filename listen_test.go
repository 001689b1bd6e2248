package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

func TestCheckLooksAtTheFilesOfBackends(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	tlstest.WriteRoots(ca)
	cert, key := tlstest.WritePEM(dir, tlstest.ClientCertificate("gateway"))
	good := fmt.Sprintf("listeners:\n  - address: 127.0.0.1:0\n    protocol: imap\n    backend: tls://127.0.0.1:1\n"+
		"    backend_options:\n      ca: %s\n      cert: %s\n      key: %s\n", ca, cert, key)
	status, stdout, stderr := command("-check", "-config", enginetest.WriteFile(t, "good.yaml", good))
	if status != exitOK || !strings.HasSuffix(stdout, "\nconfiguration ok\n") || stderr != "" {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
	for file, want := range map[string]string{
		ca:  "bad.yaml:6:11: listeners[0].backend_options.ca: cannot read",
		key: "bad.yaml:8:12: listeners[0].backend_options.key: cannot read",
	} {
		bad := strings.Replace(good, file, file+".gone", 1)
		status, stdout, stderr := command("-check", "-config", enginetest.WriteFile(t, "bad.yaml", bad))
		if status != exitUsage || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
		}
	}
}

// A PROXY header that comes in names the client in the one that goes out.
func TestClientBehindAProxyIsNamedToTheBackend(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	first := make(chan string, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			first <- err.Error()
			return
		}
		defer c.Close()
		line, _ := bufio.NewReader(c).ReadString('\n')
		first <- line
	}()
	p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf("listeners:\n  - address: 127.0.0.1:0\n    protocol: smtp\n"+
		"    proxy_protocol: true\n    trusted: [127.0.0.1]\n    backend: tcp://%s\n    backend_options: {proxy_protocol: v1}\n", ln.Addr())})
	c, err := net.Dial("tcp", p.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	const header = "PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n"
	if _, err := io.WriteString(c, header); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); !strings.HasPrefix(line, "220 ") {
		t.Fatalf("greeted %q, %v", line, err)
	}
	if _, err := io.WriteString(c, "EHLO client.example\r\nMAIL FROM:<a@example.org>\r\n"); err != nil {
		t.Fatal(err)
	}
	select {
	case line := <-first:
		if line != header {
			t.Errorf("the backend was told %q", line)
		}
	case <-time.After(10 * time.Second):
		t.Error("no connection to the backend")
	}
}
