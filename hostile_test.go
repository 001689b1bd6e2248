package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

// F5, F6: a backend that is not what it should be gets nothing, and the client is told.
func TestGatewayBackendsThatAreNotToBeTrusted(t *testing.T) {
	hostile := map[string]func(d *dialect) func(r *bufio.Reader, say, note func(string)){
		"no STARTTLS": func(d *dialect) func(r *bufio.Reader, say, note func(string)) {
			return func(r *bufio.Reader, say, note func(string)) {
				say(without(d.banner))
				answer := d.answer
				if d.state != nil {
					answer = d.state()
				}
				converse(r, say, note, func(line string) string { return without(answer(line)) })
			}
		},
		"refuses STARTTLS": func(d *dialect) func(r *bufio.Reader, say, note func(string)) {
			return func(r *bufio.Reader, say, note func(string)) {
				say(d.banner)
				answer := d.answer
				if d.state != nil {
					answer = d.state()
				}
				converse(r, say, note, func(line string) string {
					if tag, ok := startsTLS(line); ok {
						return map[string]string{"imap": tag + " NO no\r\n", "pop3": "-ERR no\r\n", "sieve": "NO\r\n", "nntp": "580 no\r\n", "ftp": "431 no\r\n"}[d.name] +
							map[bool]string{true: "454 no\r\n"}[d.final == `^\d{3} `]
					}
					return answer(line)
				})
			}
		},
		"more behind the go-ahead": func(d *dialect) func(r *bufio.Reader, say, note func(string)) {
			return func(r *bufio.Reader, say, note func(string)) {
				say(d.banner)
				answer := d.answer
				if d.state != nil {
					answer = d.state()
				}
				converse(r, say, note, func(line string) string {
					if tag, ok := startsTLS(line); ok {
						return map[string]string{"imap": tag + " OK go\r\n* CAPABILITY EVIL\r\n", "pop3": "+OK go\r\n+OK evil\r\n",
							"sieve": "OK\r\n\"EVIL\"\r\nOK\r\n", "nntp": "382 go\r\n101 evil\r\n.\r\n", "ftp": "234 go\r\n230 evil\r\n"}[d.name] +
							map[bool]string{true: "220 go\r\n250 evil\r\n"}[d.final == `^\d{3} `]
					}
					return answer(line)
				})
			}
		},
		"PREAUTH": func(d *dialect) func(r *bufio.Reader, say, note func(string)) {
			if d.name != "imap" {
				return nil
			}
			return func(r *bufio.Reader, say, note func(string)) {
				say("* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome\r\n")
				converse(r, say, note, d.answer)
			}
		},
	}
	for name, make := range hostile {
		t.Run(name, func(t *testing.T) {
			everyDialect(t, func(t *testing.T, d *dialect) {
				talking := make(d)
				if talking == nil {
					t.Skip("not in this protocol")
				}
				s := startTalk(t, talking)
				p := enginetest.Start(t, enginetest.Config{YAML: fmt.Sprintf(
					"listeners:\n  - {address: '127.0.0.1:0', protocol: %s, backend: 'starttls://%s', backend_options: {ca: %q}}\n",
					d.name, s.addr, roots(t))})
				c := talk(t, d, p.Addrs[0]).greeted()
				c.ask(d.starttls)
				c.handshake(tls.VersionTLS13)
				if d.name != "sieve" {
					_, _ = io.WriteString(c, d.open[0].send)
				}
				said, err := io.ReadAll(c.r)
				if len(said) == 0 || err != nil || strings.Contains(string(said), "vil") {
					t.Errorf("the client is told %q, %v", said, err)
				}
				if got, _ := s.received(); strings.Contains(got, "LOGIN") || strings.Contains(got, "USER") || strings.Contains(got, "client.example") {
					t.Errorf("the backend was sent %q", got)
				}
				logged(t, p, "no backend")
			})
		})
	}
}

// roots is a PEM file with the authority of the tests' certificates.
func roots(t *testing.T) string {
	t.Helper()
	file := t.TempDir() + "/ca.pem"
	tlstest.WriteRoots(file)
	return file
}

func converse(r *bufio.Reader, say, note func(string), answer func(string) string) {
	for {
		line, err := r.ReadString('\n')
		note(line)
		if err != nil {
			return
		}
		if reply := answer(strings.TrimRight(line, "\r\n")); reply != "" {
			say(reply)
		}
	}
}

// without is a backend's text that does not offer STARTTLS.
func without(text string) string {
	for _, offer := range []string{"250-STARTTLS\r\n", " STARTTLS", "STLS\r\n", "\"STARTTLS\"\r\n", "\r\nSTARTTLS"} {
		text = strings.ReplaceAll(text, offer, "")
	}
	return text
}

// startsTLS reports whether line is STARTTLS, and its IMAP tag.
func startsTLS(line string) (tag string, ok bool) {
	if tag, verb, cut := strings.Cut(line, " "); cut && strings.EqualFold(verb, "STARTTLS") {
		return tag, true
	}
	return "", strings.EqualFold(line, "STARTTLS") || strings.EqualFold(line, "STLS") || strings.EqualFold(line, "AUTH TLS")
}
