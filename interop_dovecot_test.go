package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// dovecotConfig is a server in plaintext, as it may stand behind starttlsd. The names
// in capitals are filled in.
const dovecotConfig = `
protocols = imap pop3 lmtp sieve submission
base_dir = DIR/run
state_dir = DIR/state
instance_name = starttlsd-interop
log_path = DIR/log
listen = 127.0.0.1
hostname = backend.example
ssl = no
disable_plaintext_auth = no
auth_username_format = %Ln
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
login_trusted_networks = 127.0.0.1
haproxy_trusted_networks = 127.0.0.1
login_log_format_elements = user=<%u> method=%m rip=%r lip=%l %c name=%{local_name} session=<%{session}>
mail_location = maildir:DIR/mail/%n
first_valid_uid = 1
first_valid_gid = 1
lmtp_save_to_detail_mailbox = no
submission_relay_host = 127.0.0.1
submission_relay_port = RELAY
passdb {
  driver = static
  args = password=secret
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=DIR/mail/%n
}
namespace inbox {
  inbox = yes
}
service imap-login {
  inet_listener imap {
    port = IMAP
  }
}
service pop3-login {
  inet_listener pop3 {
    port = POP3
    haproxy = yes
  }
}
service managesieve-login {
  inet_listener sieve {
    port = SIEVE
    haproxy = yes
  }
}
service submission-login {
  inet_listener submission {
    port = SUBMISSION
  }
}
service lmtp {
  inet_listener lmtp {
    address = 127.0.0.1
    port = LMTP
  }
}
`

// dovecotFront is the listeners in front of it.
const dovecotFront = `
hostname: mail.example.org
tls: {certificates: [{cert: CERT, key: KEY}]}
listeners:
  - {address: "127.0.0.1:0", protocol: imap, backend: "tcp://127.0.0.1:IMAP", backend_options: {imap_id: true}}
  - {address: "127.0.0.1:0", protocol: imap, tls: implicit, backend: "tcp://127.0.0.1:IMAP", backend_options: {imap_id: true}}
  - {address: "127.0.0.1:0", protocol: pop3, backend: "tcp://127.0.0.1:POP3", backend_options: {proxy_protocol: v2}}
  - {address: "127.0.0.1:0", protocol: pop3, tls: implicit, backend: "tcp://127.0.0.1:POP3", backend_options: {proxy_protocol: v2}}
  - {address: "127.0.0.1:0", protocol: sieve, backend: "tcp://127.0.0.1:SIEVE", backend_options: {proxy_protocol: v2}}
  - {address: "127.0.0.1:0", protocol: smtp, require_tls: true, backend: "tcp://127.0.0.1:SUBMISSION", backend_options: {xclient: true}}
  - {address: "127.0.0.1:0", protocol: lmtp, backend: "tcp://127.0.0.1:LMTP", backend_options: {xclient: true}}
`

// dovecot is one with starttlsd in front of it. Users are whoever they say they are,
// with the password "secret".
type dovecot struct {
	*enginetest.Process
	t   *testing.T
	dir string
	ca  string

	imap, imaps, pop3, pop3s, sieve, submission, lmtp string // our ports
	sink                                              *stub  // where submitted mail goes
}

func startDovecot(t *testing.T) *dovecot {
	t.Helper()
	enginetest.Need(t, "dovecot", "doveadm")
	enginetest.NeedRoot(t)
	for _, part := range []string{"imap", "pop3", "managesieve", "submission", "lmtp"} {
		if _, err := os.Stat("/usr/lib/dovecot/" + part); err != nil {
			enginetest.Unavailable(t, "Dovecot has no "+part)
		}
	}
	d := &dovecot{t: t, dir: enginetest.OpenDir(t), ca: roots(t), sink: startStub(t, dialects[0])}
	pairs := []string{"DIR", d.dir, "RELAY", port(t, d.sink.addr)}
	var ports []string
	for _, name := range []string{"IMAP", "POP3", "SIEVE", "SUBMISSION", "LMTP"} {
		p := enginetest.FreePort(t)
		ports = append(ports, p)
		pairs = append(pairs, name+"\n", p+"\n", name+`"`, p+`"`)
	}
	if err := os.Mkdir(filepath.Join(d.dir, "mail"), 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(filepath.Join(d.dir, "mail"), 0o777)
	enginetest.Daemon(t, "dovecot", "-F", "-c", enginetest.Fill(t, d.dir, "dovecot.conf", dovecotConfig, pairs...))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Dovecot's log:\n%s", d.log())
		}
	})
	for _, p := range ports {
		enginetest.Listens(t, p)
	}
	cert, key := tlstest.WritePEM(t.TempDir(), tlstest.Certificate(tlstest.ServerName, "localhost", "127.0.0.1"))
	pairs = append(pairs, "CERT", cert, "KEY", key)
	d.Process = enginetest.Start(t, enginetest.Config{YAML: strings.NewReplacer(pairs...).Replace(dovecotFront)})
	for i, to := range []*string{&d.imap, &d.imaps, &d.pop3, &d.pop3s, &d.sieve, &d.submission, &d.lmtp} {
		*to = port(t, d.Addrs[i])
	}
	return d
}

func (d *dovecot) log() string {
	log, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(log)
}

// fill puts n messages into a user's inbox, the way delivery would.
func (d *dovecot) fill(user string, n, size int) {
	d.t.Helper()
	inbox := filepath.Join(d.dir, "mail", user)
	for _, sub := range []string{"", "cur", "new", "tmp"} {
		if err := os.MkdirAll(filepath.Join(inbox, sub), 0o777); err != nil {
			d.t.Fatal(err)
		}
		_ = os.Chmod(filepath.Join(inbox, sub), 0o777)
	}
	for i := range n {
		name := filepath.Join(inbox, "new", fmt.Sprintf("%d.M%dP1.host", 1_700_000_000+i, i))
		if err := os.WriteFile(name, []byte(testMail(i, size)), 0o666); err != nil {
			d.t.Fatal(err)
		}
	}
	nobody, nogroup := 65534, 65534
	_ = filepath.Walk(inbox, func(path string, _ os.FileInfo, _ error) error { return syscall.Chown(path, nobody, nogroup) })
}

// testMail is the i-th message, with LF for line ends.
func testMail(i, size int) string {
	head := fmt.Sprintf("From: a@example.org\nTo: b@example.org\nSubject: message %d\nMessage-ID: <%d@interop.example>\nDate: Tue, 24 Nov 2026 12:00:00 +0000\n\n", i, i)
	line := strings.Repeat(strconv.Itoa(i%10), 70) + "\n"
	return head + strings.Repeat(line, size/len(line)+1)
}

// succeed runs a program that has to succeed and print all of wants.
func succeed(t *testing.T, input string, argv []string, wants ...string) string {
	t.Helper()
	out, err := enginetest.Program(t, input, argv...)
	if err != nil {
		t.Error(err)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			t.Errorf("%s: %q is not in its output:\n%s", strings.Join(argv, " "), want, out)
		}
	}
	return out
}

func port(t *testing.T, addr string) string {
	t.Helper()
	return addr[strings.LastIndexByte(addr, ':')+1:]
}

func TestInteropDovecotWithCurl(t *testing.T) {
	enginetest.Need(t, "curl")
	d := startDovecot(t)
	d.fill("alice", 3, 1000)
	curl := func(more ...string) []string {
		return append([]string{"curl", "-sS", "--ssl-reqd", "--cacert", d.ca, "-u", "alice:secret", "--max-time", "20"}, more...)
	}
	succeed(t, "", curl("imap://127.0.0.1:"+d.imap+"/INBOX;MAILINDEX=2"), "Subject: message 1")
	succeed(t, "", curl("imaps://127.0.0.1:"+d.imaps+"/INBOX", "-X", "FETCH 1:3 FLAGS"), "3 FETCH")
	succeed(t, "", curl("pop3://127.0.0.1:"+d.pop3+"/1"), "Subject: message 0")
	succeed(t, "", curl("pop3s://127.0.0.1:"+d.pop3s+"/"), "3 ")
	succeed(t, testMail(7, 100), curl("smtp://127.0.0.1:"+d.submission+"/client.example", "--crlf", "--mail-from", "alice@example.org",
		"--mail-rcpt", "bob@example.org", "-T", "-"))
	if got, _ := d.sink.received(); !strings.Contains(got, "Subject: message 7") || strings.Count(got, "\n.\r\n") != 1 {
		t.Errorf("Dovecot has relayed %q", got)
	}
	if out, err := enginetest.Program(t, "", curl("imap://127.0.0.1:"+d.imap+"/INBOX", "-u", "alice:wrong")...); err == nil {
		t.Errorf("a wrong password: %s", out)
	}
	if strings.Contains(d.Log(), "secret") || strings.Contains(d.Log(), "c2VjcmV0") {
		t.Error("a password is in our log")
	}
}

// The backend's own log names the client, TLS where it is told, and our ID.
func TestInteropDovecotKnowsTheClient(t *testing.T) {
	enginetest.Need(t, "openssl")
	d := startDovecot(t)
	d.fill("alice", 1, 100)
	session := func(port, protocol, input string, wants ...string) {
		t.Helper()
		succeed(t, input, []string{"openssl", "s_client", "-quiet", "-ign_eof", "-verify_return_error", "-CAfile", d.ca, "-bind", "127.0.0.9:0",
			"-verify_ip", "127.0.0.1", "-servername", tlstest.ServerName, "-starttls", protocol, "-connect", "127.0.0.1:" + port}, wants...)
	}
	session(d.imap, "imap", "a LOGIN alice secret\r\nb SELECT INBOX\r\nc LOGOUT\r\n", "a OK", "1 EXISTS", "c OK")
	session(d.pop3, "pop3", "USER alice\r\nPASS secret\r\nSTAT\r\nQUIT\r\n", "+OK 1 ")
	session(d.submission, "smtp", "EHLO client.example\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nQUIT\r\n", "235")
	session(d.sieve, "sieve", "AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\r\nLISTSCRIPTS\r\nLOGOUT\r\n", "fileinto", "OK")
	session(d.lmtp, "lmtp", "LHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@c.example>\r\nDATA\r\nSubject: by lmtp\r\n\r\nx\r\n.\r\nQUIT\r\n", "250 2.0.0", "221")
	for _, service := range []string{"imap-login", "pop3-login", "submission-login", "managesieve-login"} {
		line := ""
		enginetest.Eventually(t, service+" in Dovecot's log", func() bool {
			_, rest, _ := strings.Cut(d.log(), service+": Info: Login: ")
			line, _, _ = strings.Cut(rest, "\n")
			return line != ""
		})
		if !strings.Contains(line, "rip=127.0.0.9") {
			t.Errorf("%s has logged %q, which is not the client's address", service, line)
		}
		told := service == "pop3-login" || service == "managesieve-login" // by PROXY, version 2
		if told && (!strings.Contains(line, "secured") || !strings.Contains(line, "name="+tlstest.ServerName)) {
			t.Errorf("%s has logged %q, which knows nothing of TLS and server name", service, line)
		}
		if !strings.Contains(d.Log(), "peer=127.0.0.9:") {
			t.Error("our log does not name the client")
		}
	}
	_, rest, _ := strings.Cut(d.log(), "imap-login: Info: Login: ")
	_, id, _ := strings.Cut(rest, "session=<")
	if id, _, _ = strings.Cut(id, ">"); id == "" || !strings.Contains(d.Log(), "id="+id) {
		t.Errorf("the session %q of IMAP is not in our log", id)
	}
}

func TestInteropDovecotWithMbsync(t *testing.T) {
	enginetest.Need(t, "mbsync")
	d := startDovecot(t)
	const mails = 1000
	d.fill("alice", mails, 3000)
	for name, settings := range map[string]string{
		"starttls": "SSLType STARTTLS\nPort " + d.imap,
		"implicit": "SSLType IMAPS\nPort " + d.imaps,
	} {
		local := t.TempDir()
		config := enginetest.WriteFile(t, "mbsyncrc", fmt.Sprintf(`
IMAPAccount far
Host localhost
User alice
Pass secret
CertificateFile %s
%s

IMAPStore far
Account far

MaildirStore near
Path %s/
Inbox %s/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull
SyncState %s/
`, d.ca, settings, local, local, local))
		succeed(t, "", []string{"mbsync", "-c", config, "all"})
		found, _ := filepath.Glob(local + "/INBOX/*/*")
		good := 0
		for _, file := range found {
			text, _ := os.ReadFile(file)
			_, number, _ := strings.Cut(string(text), "Subject: message ")
			number, _, _ = strings.Cut(number, "\n")
			i, err := strconv.Atoi(strings.TrimRight(number, "\r"))
			body := strings.ReplaceAll(testMail(i, 3000), "\r", "")
			if err == nil && strings.HasSuffix(strings.ReplaceAll(string(text), "\r", ""), body[strings.Index(body, "\n\n"):]) {
				good++
			}
		}
		if good != mails {
			t.Errorf("%s: %d of %d messages came as they are", name, good, mails)
		}
	}
}

func TestInteropDovecotWithFetchmail(t *testing.T) {
	enginetest.Need(t, "fetchmail")
	d := startDovecot(t)
	d.fill("alice", 20, 1000)
	box := filepath.Join(t.TempDir(), "mbox")
	config := enginetest.WriteFile(t, "fetchmailrc", fmt.Sprintf(
		"poll localhost protocol POP3 port %s auth password username alice password secret ssl sslcertck sslcertfile %s keep mda \"cat >>%s\"\n",
		d.pop3s, d.ca, box))
	config2 := enginetest.WriteFile(t, "fetchmailrc", fmt.Sprintf(
		"poll localhost protocol POP3 port %s auth password username alice password secret sslproto TLS1.2+ sslcertck sslcertfile %s fetchall nokeep mda \"cat >>%s\"\n",
		d.pop3, d.ca, box))
	for i, c := range []string{config, config2} {
		succeed(t, "", []string{"fetchmail", "-f", c, "--nodetach", "--nosyslog", "--pidfile", t.TempDir() + "/pid", "-i", t.TempDir() + "/ids"})
		text, _ := os.ReadFile(box)
		if n := strings.Count(string(text), "Subject: message "); n != 20*(i+1) {
			t.Errorf("%d messages, want %d", n, 20*(i+1))
		}
	}
}

const pythonClients = `
import imaplib, poplib, smtplib, ssl, sys
imap, imaps, pop3, pop3s, submission, lmtp, ca = sys.argv[1:]
ctx = ssl.create_default_context(cafile=ca)
m = imaplib.IMAP4("127.0.0.1", int(imap))
try:
    m.login("alice", "secret"); sys.exit("login in clear")
except imaplib.IMAP4.error as e:
    assert "PRIVACYREQUIRED" in str(e), e
m.starttls(ctx); m.login("alice", "secret"); m.select()
assert len(m.search(None, "ALL")[1][0].split()) == 3
m.append("INBOX", None, None, b"Subject: appended\r\n\r\n" + (b"x" * 70 + b"\r\n") * 3000)
assert len(m.fetch("4", "(BODY.PEEK[])")[1][0][1]) > 200000
m.logout()
with imaplib.IMAP4_SSL("127.0.0.1", int(imaps), ssl_context=ctx) as m:
    m.authenticate("PLAIN", lambda _: b"\0alice\0secret"); m.select()
p = poplib.POP3("127.0.0.1", int(pop3))
assert "STLS" in p.capa()
p.stls(ctx)
assert "STLS" not in p.capa()
p.user("alice"); p.pass_("secret"); assert p.stat()[0] == 4; assert len(p.retr(4)[1]) > 2; p.quit()
p = poplib.POP3_SSL("127.0.0.1", int(pop3s), context=ctx); p.user("alice"); p.pass_("secret"); p.quit()
s = smtplib.SMTP("127.0.0.1", int(submission))
s.starttls(context=ctx); s.ehlo(); assert not s.has_extn("starttls") and not s.has_extn("xclient")
s.login("alice", "secret"); s.sendmail("a@b.example", ["c@d.example"], "Subject: x\r\n\r\nhello\r\n"); s.quit()
l = smtplib.LMTP("127.0.0.1", int(lmtp)); l.starttls(context=ctx)
print(l.sendmail("a@b.example", ["alice@d.example", "bob@d.example"], "Subject: x\r\n\r\nhello\r\n")); l.quit()
print("all well")
`

func TestInteropDovecotWithPython(t *testing.T) {
	enginetest.Need(t, "python3")
	d := startDovecot(t)
	d.fill("alice", 3, 1000)
	succeed(t, pythonClients, []string{"python3", "-", d.imap, d.imaps, d.pop3, d.pop3s, d.submission, d.lmtp, d.ca}, "all well")
}

func TestInteropDovecotWithOtherClients(t *testing.T) {
	enginetest.Need(t, "gnutls-cli", "sieve-connect", "swaks")
	d := startDovecot(t)
	d.fill("alice", 1, 100)
	for protocol, ports := range map[string]string{"imap": d.imap, "pop3": d.pop3, "smtp": d.submission, "lmtp": d.lmtp, "sieve": d.sieve} {
		quit := map[string]string{"imap": "a LOGOUT\n", "sieve": "LOGOUT\n"}[protocol]
		if quit == "" {
			quit = "QUIT\n"
		}
		succeed(t, quit, []string{"gnutls-cli", "--crlf", "--starttls-proto=" + protocol, "--x509cafile=" + d.ca, "--verify-hostname=" + tlstest.ServerName,
			"-p", ports, "127.0.0.1"}, "- Status: The certificate is trusted")
	}
	script := enginetest.WriteFile(t, "filter.sieve", "require \"fileinto\";\nkeep;\n")
	succeed(t, "secret\n", []string{"sieve-connect", "--server", "localhost", "--port", d.sieve, "--user", "alice", "--authmech", "PLAIN",
		"--passwordfd", "0", "--tlscafile", d.ca, "--upload", "--localsieve", script, "--remotesieve", "filter"})
	succeed(t, "secret\n", []string{"sieve-connect", "--server", "localhost", "--port", d.sieve, "--user", "alice", "--authmech", "PLAIN",
		"--passwordfd", "0", "--tlscafile", d.ca, "--list"}, "filter")
	succeed(t, "", []string{"swaks", "--server", "127.0.0.1:" + d.submission, "--tls", "--auth", "PLAIN", "--auth-user", "alice", "--auth-password", "secret",
		"--from", "a@b.example", "--to", "c@d.example", "--timeout", "20"}, "<~  250 ")
	succeed(t, "", []string{"swaks", "--protocol", "LMTP", "--server", "127.0.0.1:" + d.lmtp, "--tls", "--from", "a@b.example", "--to", "alice@d.example", "--timeout", "20"}, "<~  250 ")
}
