package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"math"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"starttlsd/engine/enginetest"
	"starttlsd/tlsbridge/tlstest"
)

func TestUpgrades(t *testing.T) {
	for _, scheme := range []string{"smtp", "smtps"} {
		t.Run(scheme, func(t *testing.T) {
			addr := serve(t, tlstest.ServerConfig(), scheme == "smtps", &store{})
			res := mustRun(t, Options{Target: target(t, scheme, addr), TLS: tlstest.ClientConfig(),
				Connections: 8, Operations: 40, Sources: true})
			clean(t, res, 40)
			if res.TLS == "" || res.Resumed != 0 || len(res.Samples) == 0 {
				t.Errorf("TLS %q, %d resumed, %d samples", res.TLS, res.Resumed, len(res.Samples))
			}
		})
	}
}

func TestUpgradesResumeSessions(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Target: target(t, "smtp", addr), Connections: 1, Operations: 5, Resume: true})
	clean(t, res, 5)
	if res.Resumed != 4 {
		t.Errorf("%d resumed, want 4", res.Resumed)
	}
}

func TestCertificateIsVerified(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	cfg := tlstest.ClientConfig()
	cfg.ServerName = "other.example.org"
	res := mustRun(t, Options{Target: target(t, "smtp", addr), Operations: 1, TLS: cfg})
	if res.Errors[Handshake] != 1 {
		t.Errorf("errors: %v", res.Errors)
	}
}

func TestChat(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	for _, plain := range []bool{true, false} {
		res := mustRun(t, Options{Mode: Chat, Target: target(t, "smtp", addr), Connections: 4, Operations: 200, Plain: plain})
		clean(t, res, 200)
		if (res.TLS == "") != plain {
			t.Errorf("plain %v: %q", plain, res.TLS)
		}
	}
}

func TestOpenLoopDoesAsManyAsTheRateSays(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Target: target(t, "smtp", addr), Rate: 100, Duration: 300 * time.Millisecond})
	if res.Done+res.Missed != 30 || res.Failed() > 0 {
		t.Errorf("%d done, %d missed, %v", res.Done, res.Missed, res.Examples)
	}
}

func TestSamplesHaveEveryOperation(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Mode: Chat, Target: target(t, "smtp", addr), Connections: 2, Duration: 1200 * time.Millisecond})
	var sum int64
	for _, s := range res.Samples {
		sum += s.Done
	}
	if len(res.Samples) < 2 || sum != res.Done {
		t.Errorf("%d operations are in %d samples, %d are done", sum, len(res.Samples), res.Done)
	}
}

func TestFailuresHaveTheirLatency(t *testing.T) {
	addr := script(t, func(_ int64, c *textproto.Conn) {
		answer(c, "220 hello", func(verb string) string {
			if verb == "NOOP" {
				time.Sleep(20 * time.Millisecond)
				return "500 no"
			}
			return "250 fine"
		})
	})
	res := mustRun(t, Options{Mode: Chat, Plain: true, Target: target(t, "smtp", addr), Connections: 1, Operations: 3})
	if f := res.Failures; f == nil || f.Count() != 3 || f.Percentile(0) < 20*time.Millisecond || res.Latency.Count() != 0 {
		t.Errorf("%d failed: %+v", res.Failed(), f)
	}
}

// One command takes 300 ms; some forty others are due meanwhile.
func TestStormDoesNotHideAStall(t *testing.T) {
	var commands atomic.Int64
	addr := script(t, func(_ int64, c *textproto.Conn) {
		answer(c, "220 hello", func(verb string) string {
			if verb == "NOOP" && commands.Add(1) == 5 {
				time.Sleep(300 * time.Millisecond)
			}
			return "250 fine"
		})
	})
	r, err := newRun(t.Context(), Options{Mode: Storm, Plain: true, Target: target(t, "smtp", addr), TLS: &tls.Config{}, Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s := r.connectMany(1)[0]
	r.rec.enter("before")
	done := make(chan struct{})
	time.AfterFunc(500*time.Millisecond, func() { close(done) })
	r.ping(s, done)
	s.end()
	slow := 0
	for _, p := range []float64{0, 10, 20, 30, 40, 50, 60, 70, 80, 90} {
		if r.rec.phase.Load().Latency.Percentile(p) > 50*time.Millisecond {
			slow++
		}
	}
	if slow < 3 {
		t.Errorf("%d tenths of the commands were slow: the stall is hidden", slow)
	}
}

// Twenty commands are due in 200 ms, and the server is busy with the first for 300.
func TestOpenLoopLatencyCountsFromWhenAnOperationWasDue(t *testing.T) {
	var stalled atomic.Bool
	addr := script(t, func(_ int64, c *textproto.Conn) {
		answer(c, "220 hello", func(verb string) string {
			if verb == "NOOP" && stalled.CompareAndSwap(false, true) {
				time.Sleep(300 * time.Millisecond)
			}
			return "250 fine"
		})
	})
	o := Options{Mode: Chat, Plain: true, Target: target(t, "smtp", addr), Connections: 1, Rate: 100, Operations: 20}
	res := mustRun(t, o)
	clean(t, res, 20)
	if least := res.Latency.Percentile(0); least < 100*time.Millisecond {
		t.Errorf("the least latency is %v: the stall is hidden", least)
	}
}

func TestOpenLoopTellsWhatItNeverBegan(t *testing.T) {
	addr := script(t, func(_ int64, c *textproto.Conn) {
		answer(c, "220 hello", func(verb string) string {
			if verb == "NOOP" {
				time.Sleep(500 * time.Millisecond)
			}
			return "250 fine"
		})
	})
	res := mustRun(t, Options{Mode: Chat, Plain: true, Target: target(t, "smtp", addr),
		Connections: 1, Rate: 100, Duration: 200 * time.Millisecond})
	if res.Missed == 0 || res.Done+res.Missed != 20 {
		t.Errorf("%d done, %d missed", res.Done, res.Missed)
	}
}

func TestMailArrivesAsItIs(t *testing.T) {
	s := &store{}
	addr := serve(t, tlstest.ServerConfig(), false, s)
	res := mustRun(t, Options{Mode: Mail, Target: target(t, "smtp", addr), Connections: 2, Operations: 250, Size: 3000})
	clean(t, res, 250)
	if len(s.messages) != 250 {
		t.Errorf("%d messages arrived", len(s.messages))
	}
	want := message(3000)
	for _, m := range s.messages {
		if got := string(enginetest.Content(m)); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestMessageHasItsSizeAndLinesWithDots(t *testing.T) {
	for n := 20; n < 1000; n++ {
		if m := message(n); len(m) != n || m[n-2:] != "\r\n" {
			t.Fatalf("%d bytes, want %d: %q", len(m), n, m)
		}
	}
	r := textproto.NewReader(bufio.NewReader(strings.NewReader(stuffed(message(1000)) + ".\r\nNOOP\r\n")))
	if content, err := io.ReadAll(r.DotReader()); err != nil || len(content) == 0 {
		t.Error(err)
	}
	if next, err := r.ReadLine(); next != "NOOP" {
		t.Errorf("behind the content: %q, %v", next, err)
	}
}

func TestHold(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	for _, o := range []Options{{}, {Plain: true}, {Size: maxRecord}} {
		o.Mode, o.Target, o.Connections, o.Duration = Hold, target(t, "smtp", addr), 20, 100*time.Millisecond
		res := mustRun(t, o)
		clean(t, res, 20)
		if meanwhile := res.Phases[1].Latency.Count(); meanwhile == 0 {
			t.Error("no upgrade was tried meanwhile")
		}
	}
}

func TestHoldFillsARecordEachWay(t *testing.T) {
	const reply = "250-server.example\r\n250-PIPELINING\r\n250 SIZE 1000000"
	for _, size := range []int{100, 4096, maxRecord} {
		commands, replies := 0, 0 // bytes behind the first two EHLO
		addr := script(t, func(n int64, c *textproto.Conn) {
			if n > 1 { // an upgrade that is tried meanwhile
				answer(c, "220 hello", fine)
				return
			}
			_ = c.PrintfLine("220 hello")
			for i := 0; ; i++ {
				line, err := c.ReadLine()
				if err != nil || line == "NOOP" {
					return
				}
				text := map[bool]string{true: reply, false: "250 fine"}[line == "EHLO load.example"]
				if i > 1 {
					commands += len(line) + 2
					replies += len(text) + 2
				}
				_ = c.PrintfLine("%s", text)
			}
		})
		mustRun(t, Options{Mode: Hold, Plain: true, Target: target(t, "smtp", addr), Connections: 1,
			Duration: time.Millisecond, Size: size})
		if commands > size || commands < size-10 || replies < size {
			t.Errorf("size %d: %d bytes of commands, %d of replies", size, commands, replies)
		}
	}
}

func TestHoldCountsThoseThatDoNotAnswer(t *testing.T) {
	addr := script(t, func(n int64, c *textproto.Conn) {
		answer(c, "220 hello", func(verb string) string {
			if verb == "NOOP" && n <= 4 {
				return ""
			}
			return "250 fine"
		})
	})
	res := mustRun(t, Options{Mode: Hold, Plain: true, Target: target(t, "smtp", addr), Connections: 10, Duration: time.Millisecond})
	if res.Done != 6 || res.Errors[Lost] != 4 || res.Failed() != 4 {
		t.Errorf("%d are left, errors: %v", res.Done, res.Errors)
	}
}

func TestStorm(t *testing.T) {
	addr := serve(t, tlstest.ServerConfig(), false, &store{})
	res := mustRun(t, Options{Mode: Storm, Target: target(t, "smtp", addr), Connections: 4, Sessions: 2, Duration: 200 * time.Millisecond})
	if res.Failed() > 0 || res.Done == 0 || len(res.Phases) != 3 {
		t.Fatalf("%d done, errors %v, phases %v", res.Done, res.Examples, res.Phases)
	}
	for i, name := range []string{"before", "during", "after"} {
		if p := res.Phases[i]; p.Name != name || p.Latency.Count() == 0 || p.Took == 0 {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func TestCancelledRunHasAResult(t *testing.T) {
	for _, mode := range []Mode{Upgrade, Hold, Chat, Mail, Storm} {
		t.Run(string(mode), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			addr := script(t, func(_ int64, c *textproto.Conn) {
				cancel()
				_, _ = c.ReadLine() // no greeting, until the client gives up
			})
			res, err := Run(ctx, Options{Mode: mode, Target: target(t, "smtp", addr), Timeout: time.Hour, Duration: time.Hour})
			if err != nil || !res.Cut || res.Failed() > 0 || res.Done != 0 {
				t.Errorf("%+v, %v", res, err)
			}
		})
	}
}

func TestServerSeesAnOrderlyEnd(t *testing.T) {
	ended := make(chan error, 1)
	addr := script(t, func(_ int64, c *textproto.Conn) {
		answer(c, "220 hello", fine)
		_, err := c.R.ReadByte()
		ended <- err
	})
	clean(t, mustRun(t, Options{Mode: Chat, Plain: true, Target: target(t, "smtp", addr), Connections: 1, Operations: 1}), 1)
	if err := <-ended; err != io.EOF {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	smtp, smtps := target(t, "smtp", "127.0.0.1"), target(t, "smtps", "127.0.0.1")
	imap, nntp, ftp := target(t, "imap", "127.0.0.1"), target(t, "nntp", "127.0.0.1"), target(t, "ftp", "127.0.0.1")
	for _, o := range []Options{
		{},
		{Target: smtp, Mode: "swim"},
		{Target: smtp, Connections: -1},
		{Target: smtp, Plain: true},
		{Target: smtps, Plain: true, Mode: Chat},
		{Target: smtp, Mode: Hold, Rate: 1},
		{Target: smtp, Mode: Hold, Connections: 1 << 30},
		{Target: smtp, Mode: Hold, Connections: 1, Size: maxRecord + 1},
		{Target: smtp, Mode: Storm, Sessions: 1 << 30},
		{Target: smtp, Connections: 1 << 30},
		{Target: smtp, Rate: 1e10},
		{Target: smtp, Rate: 1e-300},
		{Target: smtp, Rate: math.Inf(1)},
		{Target: smtp, Rate: math.NaN()},
		{Target: smtp, PID: 1 << 30},
		{Target: smtp, Behind: 1 << 30},
		{Target: imap, Mode: Mail},
		{Target: imap, Mode: Hold, Connections: 1, Size: 1},
		{Target: imap, Mode: Chat, Upload: true},
		{Target: imap, Mode: Transfer},
		{Target: imap, Mode: Transfer, User: "u"},
		{Target: imap, Mode: Transfer, User: "u\r\na NOOP", Password: "p"},
		{Target: imap, Mode: Upgrade, User: "u", Password: "p"},
		{Target: imap, Mode: Storm, User: "u", Password: "p"},
		{Target: nntp, Mode: Chat, User: "u", Password: "p"},
		{Target: nntp, Mode: Transfer, User: "u", Password: "p"},
		{Target: imap, Mode: Transfer, User: "u", Password: "p", File: "x"},
		{Target: ftp, Mode: Chat, User: "u", Password: "p", File: "x"},
		{Target: ftp, Mode: Transfer, User: "u", Password: "p", File: "x\r\nDELE y"},
		{Target: ftp, Mode: Transfer},
		{Target: ftp, Mode: Mail},
	} {
		if res, err := Run(t.Context(), o); err == nil {
			t.Errorf("%+v: %+v", o, res)
		}
	}
}

func TestTargets(t *testing.T) {
	for in, want := range map[string]string{
		"smtp://mx.example.org":   "smtp://mx.example.org:25",
		"smtps://[::1]":           "smtps://[::1]:465",
		"smtp://127.0.0.1:2525/":  "smtp://127.0.0.1:2525",
		"gopher://mx.example.org": "",
		"mx.example.org:25":       "",
		"smtp://":                 "",
		"//127.0.0.1:25":          "",
		"lmtp://[::1]":            "lmtp://[::1]:24",
		"lmtps://[::1]":           "",
		"imaps://[::1]":           "imaps://[::1]:993",
		"pop3s://[::1]":           "pop3s://[::1]:995",
		"nntps://[::1]":           "nntps://[::1]:563",
		"ftp://[::1]":             "ftp://[::1]:21",
		"ftps://[::1]":            "ftps://[::1]:990",
		"sieve://[::1]":           "sieve://[::1]:4190",
		"smtp://a@b":              "",
	} {
		got, err := ParseTarget(in)
		if got.String() != want || (err == nil) != (want != "") {
			t.Errorf("%s: %s, %v", in, got, err)
		}
	}
	if !target(t, "smtp", "127.9.9.9").Loopback() || target(t, "smtp", "192.0.2.1").Loopback() {
		t.Error("loopback is 127.0.0.0/8, and no more")
	}
}
