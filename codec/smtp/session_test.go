package smtp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"unsafe"

	"go.uber.org/goleak"

	"starttlsd/codec"
	"starttlsd/engine/enginetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		enginetest.RemoveBinary()
		os.Exit(code)
	}))
}

const envelope = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"

func TestSmuggledEndingsNeverEndAMessage(t *testing.T) {
	for _, end := range []string{
		"\n.\n", "\r.\r", "\r.\n", "\n.\r", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\n.\r", "\r\n\x00.\r\n", "\r\n.\x00\r\n",
	} {
		for _, piece := range []int{1, 1000} {
			mem := &memory{}
			c := connect(testConfig(mem), false)
			c.mustSay(t, "EHLO a\r\n"+envelope+"DATA\r\n")
			c.Out = c.Out[:0]
			in := "x" + end + "MAIL FROM:<evil@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nevil\r\n.\r\n"
			for len(in) > 0 {
				n := min(piece, len(in))
				c.Send([]byte(in[:n]))
				in = in[n:]
			}
			if got, want := string(c.Out), "554 5.6.0 NUL, bare CR or bare LF in the message\r\n"; got != want {
				t.Errorf("%q in pieces of %d: %q", end, piece, got)
			}
			if len(mem.mails) != 0 {
				t.Errorf("%q in pieces of %d: %d messages", end, piece, len(mem.mails))
			}
			c.mustSay(t, "NOOP\r\n")
		}
	}
}

func TestALineOver64KiBIsRefusedInTheBody(t *testing.T) {
	for size, want := range map[int]string{
		codec.MaxTextLine:     "250 2.0.0 Accepted as c1.1\r\n",
		codec.MaxTextLine + 1: "554 5.6.0 Line too long in the message\r\n",
	} {
		c := connect(testConfig(&memory{}), false)
		c.mustSay(t, "EHLO a\r\n"+envelope+"DATA\r\n")
		if got := c.say(strings.Repeat("x", size-2) + "\r\n.\r\n"); got != want {
			t.Errorf("line of %d: %q, want %q", size, got, want)
		}
	}
}

func TestTheBackendGetsTheEnvelope(t *testing.T) {
	mem := &memory{}
	c := connect(testConfig(mem), true)
	c.mustSay(t, "EHLO client\r\nMAIL FROM:<@r.example:a@b.example> SIZE=7 BODY=8bitmime SMTPUTF8\r\n"+
		"RCPT TO:<ü@d.example>\r\nRCPT TO:<Postmaster>\r\nDATA\r\n")
	c.mustSay(t, "x\r\n.\r\n")
	env := mem.mails[0].env
	tls := *env.TLS
	env.TLS = nil
	want := Envelope{ID: "c1.1", From: "a@b.example", To: []string{"ü@d.example", "Postmaster"}, Peer: testPeer,
		Helo: "client", UTF8: true, BodyType: "8BITMIME", Size: 7, Time: testTime}
	if got := fmt.Sprintf("%+v", env); got != fmt.Sprintf("%+v", want) {
		t.Errorf("%s, want %+v", got, want)
	}
	if tls.Version != testTLS.Version || tls.Cipher != testTLS.CipherSuite {
		t.Errorf("%+v", tls)
	}
}

func TestTheTraceHeader(t *testing.T) {
	v6 := testPeer
	v6.Remote = netip.MustParseAddrPort("[2001:db8::1]:25")
	mapped := testPeer
	mapped.Remote = netip.MustParseAddrPort("[::ffff:192.0.2.9]:25")
	const date = ";\r\n\tMon, 23 Nov 2026 12:00:00 +0000\r\n"
	for _, test := range []struct {
		peer   codec.Peer
		secure bool
		say    string
		want   string
	}{
		{testPeer, false, "HELO me\r\n" + envelope,
			"Return-Path: <a@b.example>\r\n" +
				"Received: from me ([192.0.2.1])\r\n\tby mx.test with SMTP id c1.1\r\n\tfor <c@d.example>" + date},
		{v6, false, "EHLO me\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@f.example>\r\n",
			"Return-Path: <>\r\n" +
				"Received: from me ([IPv6:2001:db8::1])\r\n\tby mx.test with ESMTP id c1.1" + date},
		{mapped, true, "EHLO ;(evil)\r\n" + envelope,
			"Return-Path: <a@b.example>\r\n" +
				"Received: from ??evil? ([192.0.2.9])\r\n\tby mx.test with ESMTPS id c1.1\r\n\tfor <c@d.example>" +
				"\r\n\ttls TLS_AES_128_GCM_SHA256 (TLS 1.3)" + date},
		{testPeer, true, "EHLO me\r\nMAIL FROM:<> SMTPUTF8\r\nRCPT TO:<ü@d.example>\r\n",
			"Return-Path: <>\r\n" +
				"Received: from me ([192.0.2.1])\r\n\tby mx.test with UTF8SMTPS id c1.1\r\n\tfor <ü@d.example>" +
				"\r\n\ttls TLS_AES_128_GCM_SHA256 (TLS 1.3)" + date},
	} {
		mem := &memory{}
		c := connect(testConfig(mem), test.secure)
		c.s.peer = &test.peer
		c.mustSay(t, test.say+"DATA\r\n.\r\n")
		if got := mem.mails[0].trace; got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

func TestTLSForgetsTheClient(t *testing.T) {
	c := connect(testConfig(&memory{}), false)
	c.mustSay(t, "EHLO liar\r\n")
	c.s.line.Next([]byte("NOO"), defaultLine)
	c.Send([]byte("STARTTLS\r\n"))
	c.Handshake()
	if c.s.helo != "" || c.s.extended || c.s.tx != nil {
		t.Errorf("%+v", c.s)
	}
	if got := c.say("USER root\r\n"); got != "554 5.5.1 This is SMTP\r\n" || !c.Closed {
		t.Errorf("the first command under TLS: %q", got)
	}
}

func TestTLSDoesNotForgetAbuse(t *testing.T) {
	c := connect(testConfig(&memory{}), false)
	c.mustSay(t, "NOOP\r\n")
	c.Send([]byte("X\r\nX\r\nX\r\nX\r\nSTARTTLS\r\n"))
	c.Handshake()
	c.mustSay(t, "NOOP\r\n")
	if got := c.say("X\r\n"); !strings.HasPrefix(got, "421 4.7.0") || !c.Closed {
		t.Errorf("%q", got)
	}
}

func TestBusyIsSaidInsteadOfTheGreeting(t *testing.T) {
	s := New(testConfig(nil), &testPeer)
	if got := string(s.Refuse(codec.Busy, nil)); got != "421 mx.test Too many connections\r\n" {
		t.Errorf("%q", got)
	}
}

// states are ways into every phase in which the engine can call Refuse.
var states = []struct {
	say   string
	phase phase
}{
	{"", fresh},
	{"EHLO a\r\n", ready},
	{"EHLO a\r\nMAIL FROM:<>\r\n", mail},
	{"EHLO a\r\n" + envelope, rcpt},
	{"EHLO a\r\n" + envelope + "BDAT 1\r\nx", chunks},
	{"EHLO a\r\n" + envelope + "DATA\r\n", inData},
	{"EHLO a\r\n" + envelope + "DATA\r\nx", inData},
	{"EHLO a\r\n" + envelope + "BDAT 9 LAST\r\n", inChunk},
	{"EHLO a\r\n" + envelope + "BDAT 9\r\nx", inChunk},
	{"EHLO a\r\nBDAT 9\r\nx", inRefused},
	{"EHLO a\r\nSTARTTLS\r\n", handshake},
	{"QUIT\r\n", over},
}

func TestRefusalIsOneReplyOrNone(t *testing.T) {
	for _, state := range states {
		for r := codec.Busy; r <= codec.Internal; r++ {
			mem := &memory{}
			c := connect(testConfig(mem), false)
			c.Send([]byte(state.say))
			if c.s.phase != state.phase {
				t.Fatalf("%q leads to %v", state.say, c.s.phase)
			}
			got := string(c.s.Refuse(r, nil))
			silent := state.phase == handshake || state.phase == over || r == codec.Injected || r == codec.TLSUnavailable
			if silent != (got == "") || got != "" && (!strings.HasPrefix(got, "421 4.") || strings.Count(got, "\n") != 1) {
				t.Errorf("%v, refusal %d: %q", state.phase, r, got)
			}
			if again := c.s.Refuse(r, nil); !silent && len(again) > 0 {
				t.Errorf("%v, refusal %d: said again", state.phase, r)
			}
			c.Close()
			if len(mem.mails) != 0 || mem.aborted != mem.opened {
				t.Errorf("%v: %d delivered, %d of %d discarded", state.phase, len(mem.mails), mem.aborted, mem.opened)
			}
		}
	}
}

func TestStepSaysNothingBehindTheGoAheadOrTheEnd(t *testing.T) {
	for _, before := range []string{"STARTTLS\r\n", "QUIT\r\n"} {
		c := connect(testConfig(nil), false)
		c.Send([]byte(before))
		if _, out, action := c.s.Step([]byte("NOOP\r\n"), nil); len(out) > 0 || action != codec.Close {
			t.Errorf("%q: %q, %d", before, out, action)
		}
	}
}

func TestContentWaitsOnTheLoopUntilItArrives(t *testing.T) {
	for _, before := range []string{"DATA\r\n", "BDAT 4 LAST\r\n"} {
		c := connect(testConfig(&memory{}), false)
		c.mustSay(t, "EHLO a\r\n"+envelope)
		c.Send([]byte(before))
		if _, _, action := c.s.Step(nil, nil); action != codec.NeedMore {
			t.Errorf("%q: %d without content", before, action)
		}
		if n, _, action := c.s.Step([]byte("x"), nil); n != 0 || action != codec.Lend {
			t.Errorf("%q: %d, %d consumed, with content", before, action, n)
		}
	}
}

func TestLendComesBeforeAnythingThatMayWait(t *testing.T) {
	blocked := &memory{begin: errors.New("called on the loop")}
	s := New(testConfig(blocked), &testPeer)
	s.Greet(nil)
	for _, line := range []string{"EHLO a\r\n", "MAIL FROM:<>\r\n", "RCPT TO:<a@b.example>\r\n", "BDAT 0 LAST\r\n"} {
		n, _, action := s.Step([]byte(line), nil)
		if want := line[0] == 'B'; n != len(line) || want != (action == codec.Lend) {
			t.Fatalf("%q: %d consumed, %d", line, n, action)
		}
	}
	if _, out, action := s.Step(nil, nil); action != codec.Return || !strings.HasPrefix(string(out), "451 ") {
		t.Errorf("%q, %d", out, action)
	}
}

// Whatever a client repeats without doing any work ends its session.
func TestNoIdleCommandCanBeRepeatedForEver(t *testing.T) {
	for _, line := range []string{
		"NOOP\r\n", "RSET\r\n", "VRFY a\r\n", "HELP\r\n", "EHLO a\r\n", "RCPT TO:<a@b.example>\r\n",
		"BDAT 0\r\n", "BDAT 1\r\nx", "STARTTLS x\r\n", "X\r\n",
		"MAIL FROM:<a@b.example> SIZE=999999999999\r\n", "MAIL FROM:<a b>\r\n",
	} {
		c := connect(testConfig(&memory{}), false)
		c.say("EHLO a\r\n")
		if c.say(strings.Repeat(line, 200)); !c.Closed {
			t.Errorf("%q: 200 times, and the session goes on", line)
		}
	}
	c := connect(testConfig(&memory{}), false)
	c.mustSay(t, "EHLO a\r\n"+envelope)
	if c.say(strings.Repeat("BDAT 0\r\n", 200)); !c.Closed {
		t.Error("empty chunks of a message go on for ever")
	}
}

func TestContentWithoutEndIsCutOff(t *testing.T) {
	cfg := testConfig(&memory{})
	cfg.MaxMessageSize = 10_000
	c := connect(cfg, false)
	c.mustSay(t, "EHLO a\r\n"+envelope+"DATA\r\n")
	for range 100 {
		c.Send([]byte(strings.Repeat("x", 998) + "\r\n"))
	}
	if !c.Closed || !strings.HasSuffix(string(c.Out), "\r\n552 5.3.4 Message too big\r\n") {
		t.Errorf("closed %v, said %q", c.Closed, c.Out)
	}
}

// A lend costs more than a small chunk: a pipeline of them must not be one each.
func TestPipelinedChunksLendOnce(t *testing.T) {
	c := connect(testConfig(&memory{}), false)
	c.mustSay(t, "EHLO a\r\n"+envelope)
	in := []byte(strings.Repeat("BDAT 1\r\nx", 500) + "NOO")
	lends, replies := 0, []byte(nil)
	for action := codec.Continue; action != codec.NeedMore; {
		var n int
		n, replies, action = c.s.Step(in, replies)
		in = in[n:]
		switch action {
		case codec.Lend:
			lends++
		case codec.Return, codec.Close:
			t.Fatalf("action %d", action)
		}
	}
	if lends != 1 || string(in) != "NOO" || strings.Count(string(replies), "250 2.0.0") != 500 {
		t.Errorf("%d lends, %d bytes left, %d replies", lends, len(in), strings.Count(string(replies), "250 2.0.0"))
	}
}

// Discarding a message may wait: it happens while the connection is lent, as it is
// from a chunk to the end of the transaction.
func TestRollingBackAMessageHappensWhileLent(t *testing.T) {
	for _, line := range []string{"RSET\r\n", "EHLO b\r\n", "HELO b\r\n"} {
		m := &memory{}
		c := connect(testConfig(m), false)
		c.mustSay(t, "EHLO a\r\n"+envelope+"BDAT 1\r\nx")
		if !c.s.lent || m.aborted != 0 {
			t.Fatalf("lent %v, %d aborted", c.s.lent, m.aborted)
		}
		n, out, action := c.s.Step([]byte(line), nil)
		if n != len(line) || !strings.HasPrefix(string(out), "250") || action != codec.Return || m.aborted != 1 {
			t.Errorf("%q: %d consumed, %q, %d, %d aborted", line, n, out, action, m.aborted)
		}
	}
}

func TestBackendErrorsHaveTheirReplies(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("tmp: %w", ErrFull): "452 4.3.1",
		ErrTooBig:                      "552 5.3.4",
		os.ErrPermission:               "451 4.3.0",
	} {
		c := connect(testConfig(&memory{begin: err}), false)
		c.mustSay(t, "EHLO a\r\n"+envelope+"DATA\r\n")
		if got := c.say(".\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %q", err, got)
		}
		if attrs := fmt.Sprint(c.s.Describe()); !strings.Contains(attrs, err.Error()) {
			t.Errorf("%v is not logged: %s", err, attrs)
		}
	}
}

func TestTheLogHoldsNoCredentials(t *testing.T) {
	c := connect(testConfig(&memory{}), false)
	c.say("EHLO a\r\nAUTH PLAIN c2VjcmV0\r\nMAIL FROM:<secret@b.example>\r\n")
	if attrs := fmt.Sprint(c.s.Describe()); strings.Contains(strings.ToLower(attrs), "secret") ||
		strings.Contains(attrs, "c2Vj") {
		t.Error(attrs)
	}
}

func TestAnIdleSessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Session{}); size > 256 {
		t.Errorf("%d bytes", size)
	}
}

func TestIdleCommandsDoNotAllocate(t *testing.T) {
	cfg := testConfig(nil)
	cfg.Limits.JunkCommands = 1 << 30
	for line, want := range map[string]float64{
		"NOOP\r\n":                0,
		"rset\r\n":                0,
		"HELP\r\n":                0,
		"HELO client.example\r\n": 0,
		"EHLO client.example\r\n": 2, // the number behind SIZE
	} {
		s := New(cfg, &testPeer)
		s.Greet(nil)
		in, out := []byte(line), make([]byte, 0, 1024)
		s.Step(in, out)
		if n := testing.AllocsPerRun(100, func() { s.Step(in, out) }); n != want {
			t.Errorf("%q: %v allocations", line, n)
		}
	}
}

func TestEveryVerbIsShortEnoughToBeFound(t *testing.T) {
	for verb := range commands {
		if got, _ := split([]byte(strings.ToLower(verb)), make([]byte, 0, len("STARTTLS"))); string(got) != verb {
			t.Errorf("%q is read as %q", verb, got)
		}
	}
}

func TestOnlyLegalPhasesFollow(t *testing.T) {
	for from := silent; from < phaseCount; from++ {
		for next := silent; next < phaseCount; next++ {
			legal := from == next || successors[from].has(next) || next == over && from != over
			func() {
				defer func() {
					if (recover() == nil) != legal {
						t.Errorf("%v after %v", next, from)
					}
				}()
				s := &Session{phase: from}
				s.to(next)
			}()
		}
	}
}
