package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// dialect is a protocol as the gateway's tests speak it, and a backend's part of it.
type dialect struct {
	name  string
	final string // what the last line of a reply looks like
	login bool   // nothing goes to the backend in clear

	hello    ask // under TLS: what the backend offers, which our list is made of
	offered  []string
	withheld []string // of what the backend offers, or says of itself
	starttls ask
	injected string // what the one line in answer to an injection looks like
	noop     ask
	quit     ask
	twice    ask   // STARTTLS under TLS
	args     ask   // STARTTLS with an argument
	secrets  []ask // credentials in clear
	open     []ask // a session under TLS in which the backend does something

	banner string                          // the backend's
	answer func(line string) string        // the backend's to a command; "" for none
	state  func() func(line string) string // makes answer where it depends on what was said before
}

// ask is a command, and what the last line of its reply looks like.
type ask struct{ send, want string }

var dialects = []*dialect{
	mailDialect("smtp", "EHLO"),
	mailDialect("lmtp", "LHLO"),
	{
		name: "imap", login: true, final: `^(a |\+ )`,
		hello:    ask{"a CAPABILITY\r\n", "^a OK"},
		offered:  []string{"IMAP4rev1", "IDLE", "AUTH=PLAIN"},
		withheld: []string{"STARTTLS", "LOGINDISABLED", "COMPRESS", "-PLUS"},
		starttls: ask{"a STARTTLS\r\n", "^a OK"},
		injected: `^\* BYE`,
		noop:     ask{"a NOOP\r\n", "^a OK"},
		quit:     ask{"a LOGOUT\r\n", "^a OK"},
		twice:    ask{"a STARTTLS\r\n", "^a BAD"},
		args:     ask{"a STARTTLS x\r\n", "^a BAD"},
		secrets: []ask{{"a LOGIN u p\r\n", "^a NO"}, {"a LOGIN {1}\r\n", "^a NO"},
			{"a AUTHENTICATE PLAIN\r\n", "^a NO"}, {"a AUTHENTICATE PLAIN AGEAYg==\r\n", "^a NO"}},
		open:   []ask{{"a LOGIN u p\r\n", "^a OK"}, {"a SELECT INBOX\r\n", "^a OK"}},
		banner: "* OK [CAPABILITY IMAP4rev1 IDLE STARTTLS LOGINDISABLED COMPRESS=DEFLATE AUTH=PLAIN AUTH=SCRAM-SHA-256-PLUS] stub\r\n",
		answer: func(line string) string {
			tag, verb, _ := strings.Cut(line, " ")
			verb, _, _ = strings.Cut(strings.ToUpper(verb), " ")
			text := tag + " OK done\r\n"
			switch verb {
			case "CAPABILITY":
				text = "* CAPABILITY IMAP4rev1 IDLE STARTTLS LOGINDISABLED COMPRESS=DEFLATE AUTH=PLAIN AUTH=SCRAM-SHA-256-PLUS\r\n" + text
			case "LOGOUT":
				text = "* BYE\r\n" + text
			}
			return text
		},
	},
	{
		name: "pop3", login: true, final: `^(\+OK|-ERR)`,
		hello:    ask{"CAPA\r\n", `^\.$`},
		offered:  []string{"USER", "SASL PLAIN"},
		withheld: []string{"STLS", "-PLUS"},
		starttls: ask{"STLS\r\n", `^\+OK`},
		injected: "^-ERR",
		noop:     ask{"CAPA\r\n", `^\.$`},
		quit:     ask{"QUIT\r\n", `^\+OK`},
		twice:    ask{"STLS\r\n", "^-ERR"},
		args:     ask{"STLS x\r\n", "^-ERR"},
		secrets:  []ask{{"USER u\r\n", "^-ERR"}, {"PASS p\r\n", "^-ERR"}, {"AUTH PLAIN AGEAYg==\r\n", "^-ERR"}, {"APOP u 00112233445566778899aabbccddeeff\r\n", "^-ERR"}},
		open:     []ask{{"USER u\r\n", `^\+OK`}, {"PASS p\r\n", `^\+OK`}, {"STAT\r\n", `^\+OK`}},
		banner:   "+OK stub <1.2@stub>\r\n",
		answer: func(line string) string {
			if strings.EqualFold(line, "CAPA") {
				return "+OK list\r\nUSER\r\nSTLS\r\nSASL PLAIN SCRAM-SHA-256-PLUS\r\n.\r\n"
			}
			return "+OK done\r\n"
		},
	},
	{
		name: "sieve", login: true, final: "^(OK|NO|BYE)",
		hello:    ask{"CAPABILITY\r\n", "^OK"},
		offered:  []string{`"fileinto"`, "PLAIN"},
		withheld: []string{"STARTTLS", "-PLUS"},
		starttls: ask{"STARTTLS\r\n", "^OK"},
		injected: "^BYE",
		noop:     ask{"NOOP\r\n", "^OK"},
		quit:     ask{"LOGOUT\r\n", "^OK"},
		twice:    ask{"STARTTLS\r\n", "^NO"},
		args:     ask{"STARTTLS x\r\n", "^NO"},
		secrets:  []ask{{"AUTHENTICATE \"PLAIN\" \"AGEAYg==\"\r\n", "^NO"}, {"AUTHENTICATE \"PLAIN\" {8+}\r\nAGEAYg==\r\n", "^NO"}},
		open:     []ask{{"AUTHENTICATE \"PLAIN\" \"AGEAYg==\"\r\n", "^OK"}, {"LISTSCRIPTS\r\n", "^OK"}},
		banner:   sieveList,
		answer: func(line string) string {
			if strings.EqualFold(line, "CAPABILITY") {
				return sieveList
			}
			return "OK\r\n"
		},
	},
	{
		name: "nntp", final: `^\d{3}`,
		hello:    ask{"CAPABILITIES\r\n", `^\.$`},
		offered:  []string{"READER", "OVER"},
		withheld: []string{"STARTTLS", "COMPRESS", "-PLUS"},
		starttls: ask{"STARTTLS\r\n", "^382"},
		injected: "^400",
		noop:     ask{"DATE\r\n", "^111"},
		quit:     ask{"QUIT\r\n", "^205"},
		twice:    ask{"STARTTLS\r\n", "^502"},
		args:     ask{"STARTTLS x\r\n", "^501"},
		secrets:  []ask{{"AUTHINFO USER u\r\n", "^483"}, {"AUTHINFO SASL PLAIN AGEAYg==\r\n", "^483"}},
		open:     []ask{{"MODE READER\r\n", "^200"}, {"GROUP test.group\r\n", "^211"}, {"ARTICLE 1\r\n", `^\.$`}},
		banner:   "200 stub\r\n",
		answer: func(line string) string {
			switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
			case "CAPABILITIES":
				return "101 list\r\nVERSION 2\r\nREADER\r\nOVER\r\nSTARTTLS\r\nCOMPRESS DEFLATE\r\nSASL PLAIN SCRAM-SHA-256-PLUS\r\n.\r\n"
			case "GROUP":
				return "211 1 1 1 test.group\r\n"
			case "ARTICLE":
				return "220 1 <a@b>\r\nSubject: x\r\n\r\n..dot\r\nSTARTTLS\r\n.\r\n"
			case "DATE":
				return "111 20261124120000\r\n"
			case "QUIT":
				return "205 bye\r\n"
			default:
				return "200 ok\r\n"
			}
		},
	},
	{
		name: "ftp", login: true, final: `^[1-5]\d\d `,
		hello:    ask{"FEAT\r\n", "^211 "},
		offered:  []string{"MLST", "UTF8", "PBSZ", "PROT", "EPSV"},
		withheld: []string{"AUTH", "CCC", "MODE", "EPRT"},
		starttls: ask{"AUTH TLS\r\n", "^234"},
		injected: "^421",
		noop:     ask{"NOOP\r\n", "^200"},
		quit:     ask{"QUIT\r\n", "^221"},
		twice:    ask{"AUTH TLS\r\n", "^503"},
		args:     ask{"AUTH TLS x\r\n", "^504"},
		secrets:  []ask{{"USER u\r\n", "^530"}, {"PASS AGEAYg==\r\n", "^530"}, {"ACCT AGEAYg==\r\n", "^530"}},
		open:     []ask{{"USER u\r\n", "^331"}, {"PASS p\r\n", "^230"}, {"CWD /d\r\n", "^250"}, {"PWD\r\n", "^257"}},
		banner:   "220-stub\r\n220 in two lines\r\n",
		answer: func(line string) string {
			switch verb, _, _ := strings.Cut(strings.ToUpper(line), " "); verb {
			case "FEAT":
				return "211-Features\r\n AUTH TLS\r\n CCC\r\n MODE Z\r\n EPRT\r\n MLST type*;\r\n UTF8\r\n211 End\r\n"
			case "USER":
				return "331 password\r\n"
			case "PASS":
				return "230-in\r\n  with\r\n230 words\r\n"
			case "CWD":
				return "250 ok\r\n"
			case "PWD":
				return "257 \"/\"\r\n"
			case "QUIT":
				return "221 bye\r\n"
			case "AUTH":
				return "502 no\r\n"
			}
			return "200 ok\r\n"
		},
	},
}

const sieveList = "\"IMPLEMENTATION\" \"stub\"\r\n\"SIEVE\" \"fileinto\"\r\n\"SASL\" \"PLAIN SCRAM-SHA-256-PLUS\"\r\n\"STARTTLS\"\r\n\"VERSION\" \"1.0\"\r\nOK\r\n"

// mailDialect is SMTP or LMTP.
func mailDialect(name, hello string) *dialect {
	return &dialect{
		name: name, final: `^\d{3} `,
		hello:    ask{hello + " client.example\r\n", "^250 "},
		offered:  []string{"SIZE 1000000", "8BITMIME", "AUTH PLAIN"},
		withheld: []string{"STARTTLS", "XCLIENT", "XFORWARD", "X-ODD", "-PLUS"},
		starttls: ask{"STARTTLS\r\n", "^220"},
		injected: "^554",
		noop:     ask{"NOOP\r\n", "^250"},
		quit:     ask{"QUIT\r\n", "^221"},
		twice:    ask{"STARTTLS\r\n", "^503"},
		args:     ask{"STARTTLS x\r\n", "^501"},
		secrets:  []ask{{"AUTH PLAIN AGEAYg==\r\n", "^538"}, {"AUTH LOGIN\r\n", "^538"}},
		open: []ask{{hello + " client.example\r\n", "^250"}, {"MAIL FROM:<a@b.example>\r\n", "^250"},
			{"RCPT TO:<c@d.example>\r\n", "^250"}, {"DATA\r\n", "^354"}, {"Subject: x\r\n\r\n..dot\r\nSTARTTLS\r\n.\r\n", "^250"}},
		banner: "220 stub\r\n",
		state:  mailServer,
	}
}

func mailServer() func(line string) string {
	inData := false
	return func(line string) string {
		verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
		switch {
		case inData && line != ".":
			return ""
		case inData:
			inData = false
			return "250 stored\r\n"
		case verb == "DATA":
			inData = true
			return "354 go on\r\n"
		case verb == "EHLO", verb == "LHLO":
			return "250-stub\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250-STARTTLS\r\n250-XCLIENT ADDR\r\n250-XFORWARD NAME\r\n" +
				"250-X-ODD\r\n250 AUTH PLAIN SCRAM-SHA-256-PLUS\r\n"
		case verb == "QUIT":
			return "221 bye\r\n"
		}
		return "250 ok\r\n"
	}
}

// stub is a backend that answers as its dialect says, one connection at a time, and
// keeps what it was sent.
type stub struct {
	addr string
	mu   sync.Mutex
	got  strings.Builder
	seen int // connections
}

func startStub(t *testing.T, d *dialect) *stub {
	t.Helper()
	return startTalk(t, func(r *bufio.Reader, say func(string), note func(string)) {
		say(d.banner)
		answer := d.answer
		if d.state != nil {
			answer = d.state()
		}
		for {
			line, err := r.ReadString('\n')
			note(line)
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			if reply := answer(line); reply != "" {
				say(reply)
			}
			if strings.HasSuffix(line, "QUIT") || strings.HasSuffix(line, "LOGOUT") {
				return
			}
		}
	})
}

// startTalk is a backend that does as talk does.
func startTalk(t *testing.T, talk func(r *bufio.Reader, say, note func(string))) *stub {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{addr: ln.Addr().String()}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.seen++
			s.mu.Unlock()
			served.Go(func() {
				defer nc.Close()
				_ = nc.SetDeadline(time.Now().Add(time.Minute))
				talk(bufio.NewReader(nc), func(text string) { _, _ = nc.Write([]byte(text)) }, func(line string) {
					s.mu.Lock()
					defer s.mu.Unlock()
					s.got.WriteString(line)
				})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		served.Wait()
	})
	return s
}

func (s *stub) received() (text string, connections int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String(), s.seen
}

// talker is a client that knows only lines.
type talker struct {
	t *testing.T
	d *dialect
	net.Conn
	r *bufio.Reader
}

func talk(t *testing.T, d *dialect, addr string) *talker {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &talker{t, d, nc, bufio.NewReader(nc)}
}

// greeted reads the greeting.
func (c *talker) greeted() *talker {
	c.t.Helper()
	final := c.d.final
	if c.d.name == "imap" {
		final = `^\* `
	}
	c.until(final)
	return c
}

func (c *talker) handshake(version uint16) *talker {
	c.t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true} // its certificate is its own
	cfg.MinVersion, cfg.MaxVersion = version, version
	tc := tls.Client(c.Conn, cfg)
	if err := tc.Handshake(); err != nil {
		c.t.Fatalf("%s: handshake: %v", c.d.name, err)
	}
	c.Conn, c.r = tc, bufio.NewReader(tc)
	return c
}

// upgrade is all up to the session under TLS.
func (c *talker) upgrade(version uint16) *talker {
	c.t.Helper()
	c.greeted().ask(c.d.starttls)
	c.handshake(version)
	if c.d.name == "sieve" {
		c.until(c.d.final) // the list, unasked
	}
	return c
}

// until reads up to the line that matches, and returns all lines.
func (c *talker) until(final string) (lines string) {
	c.t.Helper()
	last := regexp.MustCompile(final)
	for {
		line, err := c.r.ReadString('\n')
		lines += line
		if err != nil {
			c.t.Fatalf("%s: got %q, %v; want %s", c.d.name, lines, err, final)
		}
		if last.MatchString(strings.TrimRight(line, "\r\n")) {
			return lines
		}
	}
}

func (c *talker) send(text string) {
	c.t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		c.t.Fatalf("%s: sending %q: %v", c.d.name, text, err)
	}
}

// ask sends a command, and fails unless its reply ends as it should.
func (c *talker) ask(a ask) string {
	c.t.Helper()
	c.send(a.send)
	final := c.d.final
	if a.want == `^\.$` {
		final = `^(\.|-ERR.*|[45]\d\d .*)$`
	}
	reply := c.until(final)
	lines := strings.Split(strings.TrimSuffix(reply, "\r\n"), "\r\n")
	if last := lines[len(lines)-1]; !regexp.MustCompile(a.want).MatchString(last) {
		c.t.Fatalf("%s: %q is answered %q, want %s", c.d.name, a.send, reply, a.want)
	}
	return reply
}
