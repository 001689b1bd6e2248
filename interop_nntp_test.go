package main

import (
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// startNews runs sn, a small news server, which serves one client on its standard
// input, for every connection to the address that it returns.
func startNews(t *testing.T) (addr string) {
	t.Helper()
	enginetest.Need(t, "snntpd", "snprimedb", "snnewgroup")
	dir := enginetest.OpenDir(t)
	env := []string{"SNROOT=" + dir, "PATH=/usr/sbin:/usr/bin:/bin", "TCPREMOTEIP=127.0.0.1"}
	for _, argv := range [][]string{{"mkdir", dir + "/.outgoing"}, {"snprimedb"}, {"snnewgroup", "test.group"}} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer nc.Close()
				file, err := nc.(*net.TCPConn).File()
				if err != nil {
					return
				}
				defer file.Close()
				cmd := exec.Command("snntpd", "-t", "60")
				cmd.Env, cmd.Stdin, cmd.Stdout = env, file, file
				_ = cmd.Run()
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return ln.Addr().String()
}

const pythonNews = `
import nntplib, ssl, sys, time, warnings
starttls, implicit, ca = sys.argv[1:]
ctx = ssl.create_default_context(cafile=ca)
n = nntplib.NNTP("127.0.0.1", int(starttls))           # reading in clear is legal
assert "STARTTLS" in n.getcapabilities(), n.getcapabilities()
assert n.group("test.group")[4] == "test.group"
n.quit()
n = nntplib.NNTP("localhost", int(starttls), readermode=True)
n.starttls(ctx)
article = b"From: a@b.example\r\nNewsgroups: test.group\r\nSubject: %d\r\n\r\n..dot\r\nSTARTTLS\r\n" + b"x" * 60 + b"\r\n.\r\n" * 2 + b"end\r\n"
for i in range(20):
    n.post((article % i).split(b"\r\n")[:-1])
n.quit()
n = nntplib.NNTP_SSL("localhost", int(implicit), ssl_context=ctx)
for wait in range(100):
    _, count, first, last, _ = n.group("test.group")
    if count == 20: break
    time.sleep(0.1)
assert count == 20, count
seen = set()
for number in range(first, last + 1):
    text = b"\r\n".join(n.article(str(number))[1].lines)
    head, _, body = text.partition(b"\r\n\r\n")
    assert body + b"\r\n" == article.partition(b"\r\n\r\n")[2], body
    seen.add(head.partition(b"Subject: ")[2].split(b"\r\n")[0])
assert len(seen) == 20
try:
    n.login("u", "p"); sys.exit("login")
except nntplib.NNTPError: pass
n.quit()
print("all well")
`

func TestInteropNews(t *testing.T) {
	enginetest.Need(t, "openssl", "gnutls-cli", "python3")
	if _, err := enginetest.Program(t, "", "python3", "-W", "ignore", "-c", "import nntplib"); err != nil {
		enginetest.Unavailable(t, "this Python has no nntplib")
	}
	addr, ca := startNews(t), roots(t)
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(tlstest.ServerName, "localhost", "127.0.0.1"))
	p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(`
tls: {certificates: [{cert: %q, key: %q}]}
listeners:
  - {address: "127.0.0.1:0", protocol: nntp, backend: "tcp://%s"}
  - {address: "127.0.0.1:0", protocol: nntp, tls: implicit, backend: "tcp://%s"}
`, cert, key, addr, addr)})
	starttls, implicit := port(t, p.Addrs[0]), port(t, p.Addrs[1])
	succeed(t, pythonNews, []string{"python3", "-W", "ignore", "-", starttls, implicit, ca}, "all well")
	succeed(t, "GROUP test.group\r\nQUIT\r\n", []string{"openssl", "s_client", "-quiet", "-ign_eof", "-verify_return_error", "-CAfile", ca,
		"-starttls", "nntp", "-connect", "127.0.0.1:" + starttls}, "211 20 ", "205")
	out := succeed(t, "QUIT\n", []string{"gnutls-cli", "--crlf", "--starttls-proto=nntp", "--x509cafile=" + ca,
		"--verify-hostname=" + tlstest.ServerName, "-p", starttls, "127.0.0.1"}, "205")
	if !strings.Contains(out, "The certificate is trusted") {
		t.Error(out)
	}
}
