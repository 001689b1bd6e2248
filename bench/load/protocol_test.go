package load

import (
	"crypto/tls"
	"log/slog"
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/imap"
	"starttlsd/codec/pop3"
	"starttlsd/codec/sieve"
	"starttlsd/engine"
	"starttlsd/tlsbridge/tlstest"
)

// What needs no server behind the session: greeting, hello, the idle command, quit.
func TestProtocolsSpeakToTheirSessions(t *testing.T) {
	sessions := map[string]func(*codec.Peer) codec.Session{
		"imap":  func(p *codec.Peer) codec.Session { return imap.New(&imap.Config{Hostname: "x", TLS: true}, p) },
		"pop3":  func(p *codec.Peer) codec.Session { return pop3.New(&pop3.Config{Hostname: "x", TLS: true}, p) },
		"sieve": func(p *codec.Peer) codec.Session { return sieve.New(&sieve.Config{Hostname: "x", TLS: true}, p) },
	}
	for scheme, session := range sessions {
		t.Run(scheme, func(t *testing.T) {
			ln := listen(t)
			eng, err := engine.New(engine.Config{
				Listeners: []engine.Listener{{Listener: ln, Name: scheme, TLS: tlstest.ServerConfig(), NewSession: session}},
				Log:       slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = eng.Close() })
			o := Options{Mode: Hold, Target: target(t, scheme, ln.Addr().String()), Plain: true, Connections: 3, Duration: 1, Quiet: true,
				TLS: &tls.Config{InsecureSkipVerify: true}}
			res := mustRun(t, o)
			clean(t, res, 3)
		})
	}
}

func TestRepliesOfManyLines(t *testing.T) {
	for _, test := range []struct {
		scheme, want string
		lines        []string // the last is the reply's end
	}{
		{"smtp", "250", []string{"250-a", "250 b"}},
		{"imap", "* OK", []string{"* OK hi"}},
		{"imap", "a OK", []string{"* CAPABILITY x", "* BYE", "a OK"}},
		{"pop3", ".", []string{"+OK", "UIDL", "."}},
		{"pop3", ".", []string{"-ERR no"}},
		{"pop3", "+OK", []string{"+OK"}},
		{"sieve", "OK", []string{`"SIEVE" "x"`, "OK"}},
		{"nntp", ".", []string{"101 list", "READER", "."}},
		{"nntp", ".", []string{"500 what"}},
		{"nntp", "111", []string{"111 2026"}},
		{"ftp", "211", []string{"211-Features:", " AUTH TLS", "", "21", "211-EPSV", "2110 odd", "500 odder", " 211 no end", "211 End"}},
		{"ftp", "211", []string{"530-Please", "211 odd", "530 log in"}},
		{"ftp", "211", []string{"211-", "211"}},
		{"ftp", "220", []string{"220 hi"}},
	} {
		p := target(t, test.scheme, "127.0.0.1:1").protocol
		first := opening([]byte(test.lines[0] + "\r\n  "))
		for i, line := range test.lines {
			if more := p.more(first, []byte(line+"\r\n"), test.want); more != (i < len(test.lines)-1) {
				t.Errorf("%s, %q: more is %v", test.scheme, line, more)
			}
		}
	}
}
