package smtp_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"

	"starttlsd/engine/enginetest"
)

// TestInteropPostfixDeliversItsQueue has a real Postfix send 500 mails that its
// sendmail command has put into its queue. Each has to be in the Maildir once,
// byte for byte behind the Received field that Postfix adds, and Postfix has to
// call each of them sent and be left with nothing.
func TestInteropPostfixDeliversItsQueue(t *testing.T) {
	if !full() {
		t.Skip("takes long: set STARTTLSD_INTEROP=1")
	}
	need(t, "postfix", "sendmail", "postqueue")
	if os.Geteuid() != 0 {
		unavailable(t, "only root can start Postfix")
	}
	const mails = 500
	for name, test := range map[string]struct {
		settings []string
		logs     string // by Postfix
	}{
		"a connection each": {nil, "Trusted TLS connection established to 127.0.0.1"},
		"one connection, up to the limit of messages": {
			[]string{"smtp_tls_connection_reuse = yes", "smtp_destination_concurrency_limit = 1"},
			"Trusted TLS connection reused to 127.0.0.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			p := startPostfix(t, s, test.settings...)
			sent := make(map[string][]byte, mails) // by Message-ID
			for i := range mails {
				id := fmt.Sprintf("<%d@interop.example>", i)
				sent[id] = postfixMail(id, i)
			}
			p.submit(sent)
			eventually(t, "all mails are delivered", func() bool {
				return s.count() >= mails && p.idle()
			})
			checkDelivered(t, enginetest.Maildir(t, s.drop), sent)
			if n := strings.Count(p.log(), "status=sent (250 2.0.0 Accepted"); n != mails {
				t.Errorf("Postfix calls %d mails sent, want %d", n, mails)
			}
			if !strings.Contains(p.log(), test.logs) {
				t.Errorf("Postfix has not logged %q", test.logs)
			}
			s.logged(t, "resumed=true")
		})
	}
}

// postfixMail is a mail of the i-th kind. It is as sendmail(1) takes it, with the
// line ends of Unix, in lines of up to 998 octets: longer ones Postfix would fold.
func postfixMail(id string, i int) []byte {
	head := "From: Alice <alice@interop.example>\nTo: Bob <bob@interop.example>\n" +
		"Subject: interop\nDate: Mon, 23 Nov 2026 12:00:00 +0000\nMessage-ID: " + id + "\n"
	bodies := []string{
		"", // not even the end of the header
		"\n",
		"\nan ordinary line\n",
		"\n..\n...\n.dot\n..dots\n\n.\n",
		"\nno line end at the end",
		"\nno line end behind the dot\n.",
		"\n\n\nempty lines around\n\n\n",
		"\n" + strings.Repeat("x", 998) + "\n" + strings.Repeat(".", 998) + "\n" + strings.Repeat("y", 997) + "\n",
		"\n" + string(allOctets()) + "\n",
		"\n\xc3\xa5\xc3\xa4\xc3\xb6 in UTF-8, \xe5\xe4\xf6 in Latin-1\n",
		"\nFrom the start of a line\n>From that too\n",
		"\n" + randomLines(i) + "\n",
	}
	return []byte(head + bodies[i%len(bodies)])
}

// randomLines is up to 64 KiB, the same for the same seed.
func randomLines(seed int) string {
	random := rand.New(rand.NewPCG(uint64(seed), 0))
	octets := allOctets()
	var text strings.Builder
	for range random.IntN(128) {
		text.WriteString([]string{"", ".", "..", "\t"}[random.IntN(4)])
		for range random.IntN(990) {
			text.WriteByte(octets[random.IntN(len(octets))])
		}
		text.WriteByte('\n')
	}
	return text.String()
}

var (
	postfixReceived = regexp.MustCompile(`\AReceived: by client\.example \(Postfix, from userid 0\)\r\n\tid [^\r\n]+\r\n`)
	messageID       = regexp.MustCompile(`(?m)^Message-ID: (<.*>)\r$`)
)

// checkDelivered compares what arrived with what was sent, by Message-ID.
func checkDelivered(t *testing.T, messages map[string][]byte, sent map[string][]byte) {
	t.Helper()
	if len(messages) != len(sent) {
		t.Errorf("%d messages arrived, %d were sent", len(messages), len(sent))
	}
	seen := make(map[string]bool, len(sent))
	for _, message := range messages {
		content := enginetest.Content(message)
		added := postfixReceived.Find(content)
		id := messageID.FindSubmatch(content)
		if added == nil || id == nil || seen[string(id[1])] || sent[string(id[1])] == nil {
			t.Fatalf("not a mail that was sent, or one that arrived before:\n%.1000s", message)
		}
		seen[string(id[1])] = true
		same(t, content[len(added):], asSent(sent[string(id[1])]))
	}
}

// asSent is what Postfix makes of a mail in Unix form: every line, also the last
// one without an end, ends in CRLF.
func asSent(mail []byte) []byte {
	if !bytes.HasSuffix(mail, []byte("\n")) {
		mail = append(bytes.Clone(mail), '\n')
	}
	return bytes.ReplaceAll(mail, []byte("\n"), []byte("\r\n"))
}

// postfix is an instance of Postfix with everything of its own.
type postfix struct {
	t   *testing.T
	dir string
}

const postfixMain = `
compatibility_level = 3.6
queue_directory = DIR/queue
data_directory = DIR/data
maillog_file = DIR/maillog
maillog_file_prefixes = DIR
myhostname = client.example
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mydestination =
alias_maps =
smtputf8_enable = no
in_flow_delay = 0
smtp_dns_support_level = disabled
relayhost = [127.0.0.1]:PORT
smtp_tls_security_level = encrypt
smtp_tls_CAfile = CA
smtp_tls_loglevel = 1
smtp_tls_session_cache_database = btree:DIR/data/smtp_scache
minimal_backoff_time = 2s
maximal_backoff_time = 2s
queue_run_delay = 2s
`

// There is no daemon that listens on the network, and none in a chroot.
const postfixMaster = `
pickup     unix       n - n 1    1 pickup
cleanup    unix       n - n -    0 cleanup
qmgr       unix       n - n 300  1 qmgr
tlsmgr     unix       - - n 1000 1 tlsmgr
tlsproxy   unix       - - n -    0 tlsproxy
rewrite    unix       - - n -    - trivial-rewrite
bounce     unix       - - n -    0 bounce
defer      unix       - - n -    0 bounce
trace      unix       - - n -    0 bounce
flush      unix       n - n 1000 0 flush
proxymap   unix       - - n -    - proxymap
smtp       unix       - - n -    - smtp
showq      unix       n - n -    - showq
error      unix       - - n -    - error
retry      unix       - - n -    - error
discard    unix       - - n -    - discard
anvil      unix       - - n -    1 anvil
scache     unix       - - n -    1 scache
postlog    unix-dgram n - n -    1 postlogd
`

// startPostfix starts a Postfix that sends all mail to s, and returns when it runs.
// Its directory is not t.TempDir, into which Postfix's own user may not look.
func startPostfix(t *testing.T, s *server, settings ...string) *postfix {
	t.Helper()
	dir, err := os.MkdirTemp("", "postfix")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &postfix{t: t, dir: dir}
	settings = append([]string{postfixMain}, settings...)
	main := strings.NewReplacer("DIR", dir, "PORT", s.starttls, "CA\n", s.ca+"\n").Replace(strings.Join(settings, "\n"))
	p.install(main + "\n")

	cmd := exec.Command("postfix", "-c", p.path("etc"), "start-fg") // ends when all of Postfix has
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("postfix", "-c", p.path("etc"), "stop").CombinedOutput(); err != nil {
			t.Errorf("postfix stop: %v\n%s", err, out)
			_ = cmd.Process.Kill()
		}
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Postfix: %s\n%s", output.Bytes(), p.trouble())
		}
	})
	eventually(t, "Postfix has started", func() bool { return strings.Contains(p.log(), "daemon started") })
	return p
}

// install makes the directories and files that Postfix cannot make itself.
func (p *postfix) install(main string) {
	p.t.Helper()
	owner, err := user.Lookup("postfix")
	if err != nil {
		p.t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	err = errors.Join(
		os.Chmod(p.dir, 0o755),
		os.Mkdir(p.path("etc"), 0o755),
		os.Mkdir(p.path("queue"), 0o755),
		os.Mkdir(p.path("data"), 0o700),
		os.Chown(p.path("data"), uid, gid),
		os.WriteFile(p.path("etc/main.cf"), []byte(main), 0o644),
		os.WriteFile(p.path("etc/master.cf"), []byte(postfixMaster), 0o644),
	)
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *postfix) path(name string) string { return filepath.Join(p.dir, name) }

// submit puts the mails into the queue, a few at a time.
func (p *postfix) submit(mails map[string][]byte) {
	p.t.Helper()
	queue := make(chan []byte)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			for mail := range queue {
				cmd := command(p.t, "sendmail", "-C", p.path("etc"), "-i", "-f", "alice@interop.example", "bob@interop.example")
				cmd.Stdin = bytes.NewReader(mail)
				if out, err := cmd.CombinedOutput(); err != nil {
					p.t.Errorf("sendmail: %v\n%s", err, out)
				}
			}
		})
	}
	for _, mail := range mails {
		queue <- mail
	}
	close(queue)
	workers.Wait()
}

// idle reports whether the queue is empty.
func (p *postfix) idle() bool {
	return strings.Contains(succeed(p.t, nil, "postqueue", "-c", p.path("etc"), "-p"), "Mail queue is empty")
}

func (p *postfix) log() string {
	log, _ := os.ReadFile(p.path("maillog")) // not there until it starts
	return string(log)
}

// trouble is what the log says of it.
func (p *postfix) trouble() string {
	lines := regexp.MustCompile(`(?m)^.*(warning|fatal|error|panic|status=(deferred|bounced)).*$`)
	return strings.Join(lines.FindAllString(p.log(), 50), "\n")
}
