package load

import (
	"crypto/tls"
	"net/textproto"
	"testing"
	"time"

	"starttlsd/tlsbridge/tlstest"
)

// TestErrorsHaveTheirKind has one upgrade meet a server that is broken in one way.
func TestErrorsHaveTheirKind(t *testing.T) {
	// on is fine but for one command.
	on := func(verb, text string) func(*textproto.Conn) {
		return func(c *textproto.Conn) {
			answer(c, "220 hello", func(v string) string {
				if v == verb {
					return text
				}
				return fine(v)
			})
		}
	}
	greeting := func(text string) func(*textproto.Conn) {
		return func(c *textproto.Conn) { answer(c, text, fine) }
	}
	for name, test := range map[string]struct {
		kind  Kind
		serve func(*textproto.Conn)
	}{
		"ends before the greeting":  {Greeting, func(*textproto.Conn) {}},
		"speaks HTTP":               {Greeting, greeting("HTTP/1.1 400 Bad Request")},
		"is too busy to greet":      {Refused, greeting("421 4.3.2 too many connections")},
		"never greets":              {Timeout, func(c *textproto.Conn) { _, _ = c.ReadLine() }},
		"does not know EHLO":        {Wrong, on("EHLO", "500 what?")},
		"has no STARTTLS":           {Wrong, on("STARTTLS", "502 no")},
		"has no STARTTLS for now":   {Refused, on("STARTTLS", "454 not now")},
		"shuts down":                {Refused, on("STARTTLS", "421 bye")},
		"ends where a reply is due": {Lost, on("EHLO", "")},
		"ends within a reply": {Lost, func(c *textproto.Conn) {
			_ = c.PrintfLine("220 hello")
			_, _ = c.ReadLine()
			_ = c.PrintfLine("250-and")
		}},
		"answers before it is asked": {Wrong, greeting("220 hello\r\n250 fine\r\n220 go")},
		"never answers": {Timeout, func(c *textproto.Conn) {
			answer(c, "220 hello", func(string) string { _, _ = c.ReadLine(); return "" })
		}},
		"says more than go ahead": {Wrong, on("STARTTLS", "220 go\r\n220 on")},
		"speaks no TLS": {Handshake, func(c *textproto.Conn) {
			for _, text := range []string{"220 hello", "250 fine", "220 go"} {
				_ = c.PrintfLine("%s", text)
				_, _ = c.R.ReadByte()
				_, _ = c.R.Discard(c.R.Buffered())
			}
			_ = c.PrintfLine("HTTP/1.1 400 Bad Request")
		}},
		"sends a line without end": {Wrong, func(c *textproto.Conn) {
			_ = c.PrintfLine("220 hello")
			for range 32 {
				if _, err := c.W.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
			_ = c.W.Flush()
			_, _ = c.ReadLine()
			_, _ = c.ReadLine()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := script(t, func(_ int64, c *textproto.Conn) { test.serve(c) })
			o := Options{Target: target(t, "smtp", addr), Connections: 1, Operations: 1}
			if test.kind == Timeout {
				o.Timeout = 50 * time.Millisecond
			}
			one(t, mustRun(t, o), test.kind)
		})
	}
}

// one wants exactly one error.
func one(t *testing.T, res *Result, kind Kind) {
	t.Helper()
	if res.Done != 0 || res.Failed() != 1 || res.Errors[kind] != 1 || res.Examples[kind] == "" {
		t.Errorf("%d done, errors %v: %v, want one: %s", res.Done, res.Errors, res.Examples, kind)
	}
}

func TestNobodyListens(t *testing.T) {
	ln := listen(t)
	_ = ln.Close()
	one(t, mustRun(t, Options{Target: target(t, "smtp", ln.Addr().String()), Operations: 1}), Dial)
}

func TestHandshakeWithoutACommonVersion(t *testing.T) {
	cfg := tlstest.ServerConfig()
	cfg.MinVersion = tls.VersionTLS13
	addr := serve(t, cfg, false, &store{})
	one(t, mustRun(t, Options{Target: target(t, "smtp", addr), Operations: 1,
		TLS: &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}}), Handshake)
}
