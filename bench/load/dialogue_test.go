package load

import (
	"bufio"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// dialogue is a server's part: for each command, by how it begins, what it says.
// What is not there is answered as ok says.
type dialogue struct {
	greeting, ok string
	unasked      string // behind a handshake
	starttls     string // the command
	bye          string // the command that ends
	says         map[string]string
}

var dialogues = map[string]dialogue{
	"smtp": {"220 hi\r\n", "250 ok\r\n", "", "STARTTLS", "QUIT", map[string]string{
		"EHLO": "250-a\r\n250 SIZE\r\n", "STARTTLS": "220 go\r\n", "QUIT": "221 bye\r\n"}},
	"lmtp": {"220 hi\r\n", "250 ok\r\n", "", "STARTTLS", "QUIT", map[string]string{
		"EHLO": "500 what\r\n", "LHLO": "250-a\r\n250 SIZE\r\n", "STARTTLS": "220 go\r\n", "QUIT": "221 bye\r\n"}},
	"imap": {"* OK hi\r\n", "* 1 EXISTS\r\na OK\r\n", "", "a STARTTLS", "a LOGOUT", map[string]string{
		"a IDLE": "+ idling\r\n* OK still here\r\n", "a LOGOUT": "* BYE\r\na OK\r\n"}},
	"pop3": {"+OK hi\r\n", "+OK\r\n", "", "STLS", "QUIT", map[string]string{"CAPA": "+OK\r\nUIDL\r\n.\r\n"}},
	"sieve": {"\"SIEVE\" \"x\"\r\nOK\r\n", "OK\r\n", "\"SIEVE\" \"x\"\r\n\"SASL\" \"PLAIN\"\r\nOK\r\n", "STARTTLS", "LOGOUT", map[string]string{
		"CAPABILITY": "\"SIEVE\" \"x\"\r\nOK\r\n"}},
	"nntp": {"201 hi\r\n", "111 20260101000000\r\n", "", "STARTTLS", "QUIT", map[string]string{
		"CAPABILITIES": "101 list\r\nREADER\r\n.\r\n", "STARTTLS": "382 go\r\n", "QUIT": "205 bye\r\n"}},
	"ftp": {"220-hi\r\n220 there\r\n", "200 ok\r\n", "", "AUTH TLS", "QUIT", map[string]string{
		"FEAT": "211-all\r\n AUTH TLS\r\n211-x\r\n220 y\r\n211 End\r\n", "AUTH TLS": "234 go\r\n", "QUIT": "221 bye\r\n",
		"USER": "331 whose\r\n", "PASS": "230-in\r\n230 now\r\n"}},
}

// spoken is what clients have said, in the order of the lines.
type spoken struct {
	sync.Mutex
	lines []string
}

func (s *spoken) add(line string) {
	s.Lock()
	defer s.Unlock()
	s.lines = append(s.lines, line)
}

func (s *spoken) count(line string) (n int) {
	s.Lock()
	defer s.Unlock()
	for _, l := range s.lines {
		if l == line {
			n++
		}
	}
	return n
}

// play serves d, with STARTTLS, until the test is over.
func play(t *testing.T, d dialogue, heard *spoken) (addr string) {
	t.Helper()
	ln := listen(t)
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer nc.Close()
				d.serve(nc, heard)
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return ln.Addr().String()
}

func (d *dialogue) serve(nc net.Conn, heard *spoken) {
	r := bufio.NewReader(nc)
	for text := d.greeting; ; {
		if _, err := io.WriteString(nc, text); err != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSuffix(line, "\r\n")
		heard.add(line)
		text = d.ok
		for command, says := range d.says {
			if strings.HasPrefix(line, command) {
				text = says
			}
		}
		switch line {
		case d.starttls:
			if _, err := io.WriteString(nc, text); err != nil {
				return
			}
			nc = tls.Server(nc, tlstest.ServerConfig())
			r, text = bufio.NewReader(nc), d.unasked
		case d.bye:
			_, _ = io.WriteString(nc, text)
			return
		}
	}
}

func TestEveryProtocolUpgradesHoldsAndTalks(t *testing.T) {
	for _, p := range protocols {
		t.Run(p.scheme, func(t *testing.T) {
			to := target(t, p.scheme, play(t, dialogues[p.scheme], new(spoken)))
			for _, o := range []Options{
				{Mode: Upgrade, Connections: 2, Operations: 4},
				{Mode: Hold, Connections: 4, Duration: time.Millisecond},
				{Mode: Chat, Connections: 2, Operations: 4},
			} {
				o.Target = to
				res := mustRun(t, o)
				clean(t, res, 4)
				if res.TLS == "" {
					t.Errorf("mode %s: no TLS", o.Mode)
				}
			}
			res := mustRun(t, Options{Mode: Storm, Target: to, Connections: 2, Sessions: 2, Duration: 50 * time.Millisecond})
			if res.Failed() > 0 || res.Done == 0 {
				t.Errorf("storm: %d upgrades, %v", res.Done, res.Examples)
			}
		})
	}
}

func TestLogin(t *testing.T) {
	for _, test := range []struct {
		scheme, user, password string
		want                   []string
	}{
		{"imap", `u"\`, "p w", []string{`a LOGIN "u\"\\" "p w"`, "a NOOP"}},
		{"pop3", "u", "p w", []string{"USER u", "PASS p w", "CAPA"}},
		{"ftp", "u", "p w", []string{"USER u", "PASS p w", "NOOP"}},
		{"sieve", "u", "p", []string{`AUTHENTICATE "PLAIN" "AHUAcA=="`, "NOOP"}},
	} {
		t.Run(test.scheme, func(t *testing.T) {
			var heard spoken
			to := target(t, test.scheme, play(t, dialogues[test.scheme], &heard))
			res := mustRun(t, Options{Mode: Chat, Target: to, Connections: 1, Operations: 1, User: test.user, Password: test.password})
			clean(t, res, 1)
			n := len(heard.lines) - 1 // the last one is quit
			if got := heard.lines[max(0, n-len(test.want)):n]; !slices.Equal(got, test.want) {
				t.Errorf("said %q before the end, want %q", got, test.want)
			}
		})
	}
}

func TestNoErrorShowsAPassword(t *testing.T) {
	for _, scheme := range []string{"imap", "pop3", "sieve", "ftp"} {
		d := dialogues[scheme]
		d.says = maps.Clone(d.says)
		maps.Copy(d.says, map[string]string{"a LOGIN": "a NO\r\n", "PASS": map[bool]string{true: "530 no\r\n", false: "-ERR\r\n"}[scheme == "ftp"], "AUTHENTICATE": "NO\r\n"})
		to := target(t, scheme, play(t, d, new(spoken)))
		res := mustRun(t, Options{Mode: Hold, Quiet: true, Duration: 1, Target: to, Connections: 1, User: "u", Password: "s3cret"})
		if said := res.Examples[Wrong]; res.Errors[Wrong] != 1 || !strings.Contains(said, "login: ") ||
			strings.Contains(said, "s3cret") || strings.Contains(said, "AHU") {
			t.Errorf("%s: %v, %q", scheme, res.Errors, said)
		}
	}
}

func TestHeldMailboxesWaitInIDLE(t *testing.T) {
	var heard spoken
	to := target(t, "imap", play(t, dialogues["imap"], &heard))
	res := mustRun(t, Options{Mode: Hold, Quiet: true, Duration: 1, Target: to, Connections: 3, User: "u", Password: "p"})
	clean(t, res, 3)
	if idle, done := heard.count("a IDLE"), heard.count("DONE"); idle != 3 || done != 3 {
		t.Errorf("%d × IDLE, %d × DONE, want 3 of each", idle, done)
	}
}
