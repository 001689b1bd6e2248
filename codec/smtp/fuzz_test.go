package smtp

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// play gives in to a session that is in the given state, in pieces, and returns
// the replies to it. Behind STARTTLS the handshake succeeds where tls says so.
func play(cfg *Config, state int, secure bool, in []byte, piece int) *client {
	c := connect(cfg, secure)
	c.Send([]byte(states[state].say))
	if c.Awaits {
		c.Handshake()
	}
	c.Out = nil
	for len(in) > 0 && !c.Closed && !c.Awaits {
		n := min(piece, len(in))
		c.Send(in[:n])
		in = in[n:]
	}
	return c
}

var wellFormed = regexp.MustCompile(`^(?:[2345][0-9][0-9][ -][ -~]*\r\n)*$`)

// FuzzSession: from every state, in plaintext and under TLS, for any input,
//   - any two cuts give the same replies and deliver the same messages, up to the
//     first STARTTLS: what follows it in one piece is an attack, and answered so;
//   - replies are well-formed lines of at most 512 octets, and no more than one
//     reply a line of input comes;
//   - no upgrade is asked for under TLS or in a transaction, no step spins, no
//     message is used after its end or left open (the harness panics);
//   - a message is delivered for each 250 that says so and for nothing else, and
//     only if its terminator was in the input.
func FuzzSession(f *testing.F) {
	for state := range states {
		f.Add(uint8(state), uint8(2), state%2 == 0, []byte("x\r\n.\r\nEHLO a\r\n"+envelope+"DATA\r\n..\r\n.\r\nQUIT\r\n"))
		f.Add(uint8(state), uint8(0), state%2 == 1, []byte("RSET\r\nHELO a\r\n"+envelope+"BDAT 3\r\nabcBDAT 0 LAST\r\n"))
	}
	f.Add(uint8(0), uint8(5), false, []byte("NOOP\r\nSTARTTLS\r\nEHLO inj\r\n"))
	f.Add(uint8(1), uint8(9), true, []byte("MAIL FROM:<\"a b\"@[IPv6:::1]> SIZE=9 BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<Postmaster>\r\n"))
	f.Fuzz(func(t *testing.T, state, piece uint8, secure bool, in []byte) {
		begin := int(state) % len(states)
		one, two := &memory{}, &memory{}
		cfg, cfg2 := testConfig(one), testConfig(two)
		cfg.MaxMessageSize, cfg2.MaxMessageSize = 1000, 1000
		whole := play(cfg, begin, secure, in, max(len(in), 1))
		cut := play(cfg2, begin, secure, in, int(piece)+1)
		injected := bytes.Contains(whole.Out, []byte("554 5.5.0 Nothing may follow"))
		if !injected && !cut.Awaits && (!bytes.Equal(whole.Out, cut.Out) || whole.Closed != cut.Closed) {
			t.Fatalf("%v, %q\nwhole: %q\ncut:   %q", states[begin].phase, in, whole.Out, cut.Out)
		}
		if fmt.Sprint(contents(one)) != fmt.Sprint(contents(two)) {
			t.Fatalf("whole: %q\ncut:   %q", contents(one), contents(two))
		}
		for _, c := range []*client{whole, cut} {
			if !wellFormed.Match(c.Out) {
				t.Fatalf("not well-formed: %q", c.Out)
			}
			replies := 0
			for line := range strings.SplitSeq(strings.TrimSuffix(string(c.Out), "\r\n"), "\r\n") {
				if len(line)+2 > 512 {
					t.Fatalf("%d octets: %q", len(line)+2, line)
				}
				if len(line) > 3 && line[3] == ' ' {
					replies++
				}
			}
			// A chunk, a binary byte and an over-long line are answered without a line end.
			if lines := bytes.Count(in, []byte("\r\n")); replies > 2*lines+2+len(in)/defaultLine {
				t.Fatalf("%d replies to %d lines", replies, lines)
			}
		}
		accepted := bytes.Count(whole.Out, []byte("250 2.0.0 Accepted as"))
		if accepted != len(one.mails) {
			t.Fatalf("%d messages, %d said to be accepted", len(one.mails), accepted)
		}
		if ends := bytes.Count(append([]byte("\r\n"), in...), []byte("\r\n.\r\n")) + bytes.Count(bytes.ToUpper(in), []byte("LAST")); accepted > ends+1 {
			t.Fatalf("%d messages, but %d ends", accepted, ends)
		}
		for _, c := range []*client{whole, cut} {
			if !c.Closed {
				c.Close()
			}
		}
		if one.opened != one.aborted+len(one.mails) || two.opened != two.aborted+len(two.mails) {
			t.Fatalf("%d and %d messages begun, %d and %d finished",
				one.opened, two.opened, one.aborted+len(one.mails), two.aborted+len(two.mails))
		}
	})
}

func contents(m *memory) (all []string) {
	for _, mail := range m.mails {
		all = append(all, mail.content)
	}
	return all
}

// FuzzBDAT: content in chunks of any sizes, cut anywhere,
//   - is never read as commands: NOOP behind it is the first to be answered so;
//   - is delivered byte for byte when it is text of CRLF lines within the limit, and
//     not at all otherwise.
func FuzzBDAT(f *testing.F) {
	f.Add([]byte("QUIT\r\n.\r\nRSET\r\n"), uint8(4), uint8(1))
	f.Add([]byte("a\nb"), uint8(2), uint8(200))
	f.Add(bytes.Repeat([]byte("0123456789\r\n"), 20), uint8(50), uint8(7))
	f.Fuzz(func(t *testing.T, content []byte, chunk, piece uint8) {
		mem := &memory{}
		cfg := testConfig(mem)
		cfg.MaxMessageSize = 200
		cfg.Limits.JunkCommands = 1 << 30
		var in []byte
		rest, sent := content, 0
		for ; len(rest) > int(chunk) && chunk > 0; sent++ {
			in = fmt.Appendf(in, "BDAT %d\r\n%s", chunk, rest[:chunk])
			rest = rest[chunk:]
		}
		if len(rest) > 2*200 {
			return // ends the session
		}
		in = fmt.Appendf(in, "BDAT %d LAST\r\n%sNOOP\r\n", len(rest), rest)
		c := play(cfg, 3, true, in, int(piece)+1)
		replies := strings.SplitAfter(string(c.Out), "\r\n")
		if len(replies) != sent+3 || replies[sent+1] != "250 2.0.0 Ok\r\n" || c.Closed {
			t.Fatalf("%d chunks: %q", sent+1, replies)
		}
		text := strings.ReplaceAll(string(content), "\r\n", "")
		good := !strings.ContainsAny(text, "\r\n\x00") && len(content) <= 200
		switch {
		case good && (len(mem.mails) != 1 || mem.mails[0].content != string(content)):
			t.Fatalf("%q: %q", content, contents(mem))
		case !good && len(mem.mails) != 0:
			t.Fatalf("%q was delivered", content)
		}
	})
}
