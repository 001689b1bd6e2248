package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// A Postfix that takes mail in clear, for starttlsd in front of it to do the TLS: on
// one port it is told of the client by XCLIENT, on the other by a PROXY header.
const postfixMain = `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/maillog
maillog_file_prefixes = DIR
myhostname = backend.example
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
mydestination =
alias_maps =
smtpd_peername_lookup = no
smtpd_relay_restrictions = reject_unauth_destination
smtpd_authorized_xclient_hosts = 127.0.0.1
virtual_mailbox_domains = example.org
virtual_mailbox_maps = static:box/
virtual_mailbox_base = DIR/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
message_size_limit = 300000000
virtual_mailbox_limit = 0
`

const postfixMaster = `
127.0.0.1:XCLIENT inet n - n -  - smtpd
127.0.0.1:PROXY   inet n - n -  - smtpd -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_authorized_xclient_hosts=
cleanup    unix       n - n -    0 cleanup
qmgr       unix       n - n 300  1 qmgr
rewrite    unix       - - n -    - trivial-rewrite
bounce     unix       - - n -    0 bounce
defer      unix       - - n -    0 bounce
trace      unix       - - n -    0 bounce
flush      unix       n - n 1000 0 flush
proxymap   unix       - - n -    - proxymap
showq      unix       n - n -    - showq
error      unix       - - n -    - error
retry      unix       - - n -    - error
virtual    unix       - n n -    - virtual
anvil      unix       - - n -    1 anvil
postlog    unix-dgram n - n -    1 postlogd
`

const postfixFront = `
hostname: mx.example.org
tls: {certificates: [{cert: CERT, key: KEY}]}
listeners:
  - {address: "127.0.0.1:0", protocol: smtp, backend: "tcp://127.0.0.1:XCLIENT", backend_options: {xclient: true}}
  - {address: "127.0.0.1:0", protocol: smtp, backend: "tcp://127.0.0.1:PROXY", backend_options: {proxy_protocol: v2}}
  - {address: "127.0.0.1:0", protocol: smtp, tls: implicit, backend: "tcp://127.0.0.1:XCLIENT", backend_options: {xclient: true}}
limits: {messages: 1000, junk_commands: 1000}
`

type postfix struct {
	*enginetest.Process
	t       *testing.T
	dir, ca string
	ports   [3]string // ours: XCLIENT, PROXY, XCLIENT with implicit TLS
}

func startPostfix(t *testing.T) *postfix {
	t.Helper()
	enginetest.Need(t, "postfix")
	enginetest.NeedRoot(t)
	p := &postfix{t: t, dir: enginetest.OpenDir(t), ca: roots(t)}
	owner, err := user.Lookup("postfix")
	if err != nil {
		enginetest.Unavailable(t, err.Error())
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	path := func(name string) string { return filepath.Join(p.dir, name) }
	if err := errors.Join(os.Mkdir(path("etc"), 0o755), os.Mkdir(path("queue"), 0o755), os.Mkdir(path("data"), 0o700),
		os.Mkdir(path("mail"), 0o755), os.Chown(path("data"), uid, gid), os.Chown(path("mail"), 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	pairs := []string{"DIR", p.dir}
	var ports []string
	for _, name := range []string{"XCLIENT", "PROXY"} {
		free := enginetest.FreePort(t)
		ports = append(ports, free)
		pairs = append(pairs, ":"+name, ":"+free)
	}
	enginetest.Fill(t, path("etc"), "main.cf", postfixMain, pairs...)
	enginetest.Fill(t, path("etc"), "master.cf", postfixMaster, pairs...)
	enginetest.Daemon(t, "postfix", "-c", path("etc"), "start-fg")
	t.Cleanup(func() { // its master is a group of its own
		if _, err := enginetest.Program(t, "", "postfix", "-c", path("etc"), "stop"); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix's log:\n%s", p.log())
		}
	})
	for _, port := range ports {
		enginetest.Listens(t, port)
	}
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(tlstest.ServerName, "localhost", "127.0.0.1"))
	p.Process = enginetest.Start(t, enginetest.Config{YAML: strings.NewReplacer(append(pairs, "CERT", cert, "KEY", key)...).Replace(postfixFront)})
	for i := range p.ports {
		p.ports[i] = port(t, p.Addrs[i])
	}
	return p
}

func (p *postfix) log() string {
	log, _ := os.ReadFile(filepath.Join(p.dir, "maillog"))
	return string(log)
}

// delivered waits for n messages, and returns them.
func (p *postfix) delivered(n int) (messages []string) {
	p.t.Helper()
	enginetest.Eventually(p.t, fmt.Sprint(n, " messages delivered"), func() bool {
		found, _ := filepath.Glob(filepath.Join(p.dir, "mail/box/new/*"))
		if len(found) < n {
			return false
		}
		for _, file := range found {
			text, _ := os.ReadFile(file)
			messages = append(messages, string(text))
		}
		return true
	})
	return messages
}

// Each way that there is: Postfix's log and the Received line name the client.
func TestInteropPostfixKnowsTheClient(t *testing.T) {
	enginetest.Need(t, "swaks", "openssl")
	p := startPostfix(t)
	for i, port := range p.ports {
		tls := "--tls"
		if i == 2 {
			tls = "--tls-on-connect"
		}
		succeed(t, "", []string{"swaks", "--server", "127.0.0.1:" + port, tls, "--tls-verify", "--tls-ca-path", p.ca, "--local-interface", "127.0.0.9",
			"--helo", "client.example", "--from", "a@b.example", "--to", "c@example.org", "--header", fmt.Sprintf("Subject: number %d", i),
			"--timeout", "20"}, "<~  250 2.0.0 Ok: queued")
	}
	// An MX takes mail in clear as well.
	succeed(t, "", []string{"swaks", "--server", "127.0.0.1:" + p.ports[0], "--local-interface", "127.0.0.9", "--helo", "client.example",
		"--from", "a@b.example", "--to", "c@example.org", "--timeout", "20"}, "<-  250 2.0.0 Ok: queued")
	for _, message := range p.delivered(4) {
		if !strings.Contains(message, "from client.example (unknown [127.0.0.9])") {
			t.Errorf("Postfix takes it for somebody else's:\n%s", message)
		}
	}
	if n := strings.Count(p.log(), "client=unknown[127.0.0.9]"); n != 4 {
		t.Errorf("Postfix's log names the client %d times, want 4", n)
	}
	// Postfix's own refusals get through, and the session goes on.
	succeed(t, "EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@elsewhere.example>\r\nXCLIENT ADDR=10.0.0.1\r\nRSET\r\nQUIT\r\n",
		[]string{"openssl", "s_client", "-quiet", "-ign_eof", "-CAfile", p.ca, "-starttls", "smtp", "-connect", "127.0.0.1:" + p.ports[0]},
		"554 5.7.1 <x@elsewhere.example>", "500 5.5.2 Command not recognized", "221 2.0.0")
}

// A pipeline of many messages on one connection, byte for byte.
func TestInteropPostfixTakesManyMessages(t *testing.T) {
	enginetest.Need(t, "python3")
	p := startPostfix(t)
	const script = `
import smtplib, ssl, sys
port, ca = sys.argv[1:]
s = smtplib.SMTP("127.0.0.1", int(port)); s.starttls(context=ssl.create_default_context(cafile=ca))
for i in range(50):
    body = "".join(("." * (j % 4)) + "line %d of %d\r\n" % (j, i) for j in range(i * 20))
    s.sendmail("a@b.example", ["c@example.org"], "From: a@b.example\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\nMessage-ID: <%d@b.example>\r\nSubject: number %d\r\n\r\n%s" % (i, i, body))
try:
    s.sendmail("a@b.example", ["c@elsewhere.example"], "x\r\n"); sys.exit("relayed")
except smtplib.SMTPRecipientsRefused: pass
s.quit(); print("all well")
`
	succeed(t, script, []string{"python3", "-", p.ports[1], p.ca}, "all well")
	seen := make(map[string]bool)
	for _, message := range p.delivered(50) {
		_, rest, _ := strings.Cut(message, "Subject: number ")
		number, body, _ := strings.Cut(rest, "\n\n")
		i, _ := strconv.Atoi(number)
		var want strings.Builder
		for j := range i * 20 {
			fmt.Fprintf(&want, "%sline %d of %d\n", strings.Repeat(".", j%4), j, i)
		}
		if body != want.String() || seen[number] {
			t.Errorf("message %q is not as it was sent", number)
		}
		seen[number] = true
	}
}
