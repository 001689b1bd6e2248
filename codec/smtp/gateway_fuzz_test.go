package smtp

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

// watched is a Gateway each step of which is looked at.
type watched struct {
	*Gateway
	t *testing.T
}

var (
	passedOn   = regexp.MustCompile(`^(?:EHLO|HELO|LHLO|MAIL|RCPT|DATA|BDAT|RSET|NOOP|VRFY|EXPN|HELP|ETRN|AUTH|QUIT)(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n$`)
	answer     = regexp.MustCompile(`^(?:[A-Za-z0-9+/=]*|\*)\r\n$`)
	unbindable = regexp.MustCompile(`-PLUS(?: |$)`)
	listed     = regexp.MustCompile(`^250[ -](?:front\.test|STARTTLS|AUTH[ =].*|[A-Z0-9a-z-]+(?: .*)?)$`)
)

func (w watched) Forward(in, up, out []byte) (int, []byte, []byte, codec.Action) {
	stage, had := w.stage, len(up)
	n, up, out, action := w.Gateway.Forward(in, up, out)
	sent := up[had:]
	switch {
	case len(sent) == 0:
	case stage == talking && (!passedOn.Match(sent) || bytes.HasPrefix(sent, []byte("AUTH")) && !w.secured):
		w.t.Fatalf("the backend gets the command %q", sent)
	case stage == answering && (!answer.Match(sent) || !w.secured):
		w.t.Fatalf("the backend gets the answer %q", sent)
	case stage == passingData && (bytes.Contains(sent, []byte("\n.\n")) || bytes.HasSuffix(sent, []byte("\r"))):
		w.t.Fatalf("the backend gets %q", sent)
	case stage == droppingData || stage == droppingChunk:
		w.t.Fatalf("the backend gets of what is dropped %q", sent)
	}
	return n, up, out, action
}

func (w watched) Reply(in, out []byte) (int, []byte, codec.Action) {
	list := w.link.waiting.Len() > 0 && w.link.waiting.First().greets()
	had := len(out)
	n, out, action := w.Gateway.Reply(in, out)
	said := string(out[had:])
	if list && strings.HasPrefix(said, "250") {
		for line := range strings.SplitSeq(strings.TrimSuffix(said, "\r\n"), "\r\n") {
			keyword, _, _ := strings.Cut(strings.ToUpper(line[min(4, len(line)):]), " ")
			if !listed.MatchString(line) || w.secured && keyword == "STARTTLS" || !w.secured && strings.HasPrefix(keyword, "AUTH") ||
				keyword == "XCLIENT" || keyword == "XFORWARD" || strings.HasPrefix(keyword, "AUTH") && unbindable.MatchString(line) {
				w.t.Fatalf("the client is offered %q", line)
			}
		}
	}
	return n, out, action
}

// willing is a backend that introduces itself well.
type willing struct{ said []string }

func (u *willing) ReadLine() ([]byte, error) {
	if len(u.said) == 0 {
		return []byte("220 stub"), nil
	}
	line := u.said[0]
	u.said = u.said[1:]
	return []byte(line), nil
}
func (u *willing) Read([]byte) (int, error) { panic("not in SMTP") }
func (u *willing) MustStartTLS() bool       { return false }
func (u *willing) Secure() bool             { return false }
func (u *willing) StartTLS() error          { panic("not asked for") }
func (u *willing) Write(p []byte) (int, error) {
	switch {
	case bytes.HasPrefix(p, []byte("XCLIENT")):
		u.said = append(u.said, "220 stub")
	case bytes.Count(p, []byte("\n")) != 1 || !passedOn.Match(p):
		panic("the backend gets " + string(p))
	default:
		u.said = append(u.said, "250-stub", "250-PIPELINING", "250-XCLIENT ADDR HELO", "250 CHUNKING")
	}
	return len(p), nil
}

// ways lead into every stage; C is what the client says, B what the backend does.
var ways = [][]string{
	{},
	{"C EHLO a\r\n"},
	{"C EHLO a\r\n", "B 250-s\r\n250-PIPELINING\r\n250 CHUNKING\r\n"},
	{"C EHLO a\r\n", "B 250-s\r\n250-PIPELINING\r\n250 CHUNKING\r\n", "C " + envelope + "DATA\r\n", "B 250 a\r\n250 b\r\n354 c\r\n"},
	{"C EHLO a\r\n", "B 250-s\r\n250-PIPELINING\r\n250 CHUNKING\r\n", "C " + envelope + "BDAT 40\r\n", "B 250 a\r\n250 b\r\n"},
	{"C EHLO a\r\n", "B 250 s\r\n", "C BDAT 40\r\n"},
	{"C EHLO a\r\n", "B 250 s\r\n", "C AUTH PLAIN\r\n", "B 334 \r\n"},
	{"C EHLO a\r\n", "B 250 s\r\n", "C QUIT\r\n"},
	{"C STARTTLS\r\n"},
}

// converse has a session hear a script of alternating segments, the client's first,
// parted by octet 0xff. It reports whether plaintext stood behind a STARTTLS.
func converse(t *testing.T, cfg *GatewayConfig, way int, secure bool, in []byte, piece int) (d *codectest.Driver, injected bool) {
	g := NewGateway(cfg, &codectest.Peer)
	d = codectest.Connect(watched{g, t}, secure)
	hear := func(backend bool, p []byte) {
		for len(p) > 0 && !d.Closed {
			n := min(piece, len(p))
			switch {
			case d.Awaits:
				injected = true
				return
			case !backend:
				d.Send(bytes.Clone(p[:n]))
			case d.Connected:
				d.Receive(bytes.Clone(p[:n]))
			}
			if d.Dialing {
				if err := d.Introduce(&willing{}); err != nil {
					t.Fatal(err)
				}
			}
			p = p[n:]
		}
		if d.Awaits && !d.Closed {
			d.Handshake()
		}
	}
	for _, s := range ways[way] {
		hear(s[0] == 'B', []byte(s[2:]))
	}
	for i, s := range bytes.Split(in, []byte{0xff}) {
		hear(i%2 == 1, s)
	}
	return d, injected
}

// FuzzGateway: from every stage, in plaintext and under TLS, for SMTP and LMTP, for
// any input of either side,
//   - any two cuts say the same to the client, and the one backend gets no more than
//     a beginning of what the other gets, up to the first STARTTLS with something
//     behind it;
//   - the backend gets commands of the table, SASL answers and content, and nothing
//     else: no STARTTLS, no XCLIENT, no credentials from a client in clear;
//   - the client is offered nothing that is not ours to pass on;
//   - the contract is kept (the driver panics).
func FuzzGateway(f *testing.F) {
	for way := range ways {
		f.Add(uint8(way), uint8(2), way%2 == 0, way%3 == 0, []byte("x\r\n.\r\nEHLO a\r\n"+envelope+"\xff250-s\r\n250-XCLIENT ADDR\r\n250 AUTH PLAIN X-PLUS\r\n250 a\r\n250 b\r\n\xffDATA\r\n\xff354 go\r\n\xffa\r\n.\r\nQUIT\r\n\xff250 x\r\n221 y\r\n"))
		f.Add(uint8(way), uint8(0), way%2 == 1, false, []byte("AUTH LOGIN\r\n\xff334 x\r\n\xffXCLIENT ADDR=1\r\n\xff501 x\r\n\xffBDAT 3 LAST\r\nabcNOOP\r\n\xff250-a\r\n421 b\r\n"))
	}
	f.Add(uint8(0), uint8(5), false, false, []byte("NOOP\r\nSTARTTLS\r\nEHLO inj\r\n"))
	f.Fuzz(func(t *testing.T, way, piece uint8, secure, lmtp bool, in []byte) {
		way %= uint8(len(ways))
		cfg := &GatewayConfig{Hostname: "front.test", TLS: true, LMTP: lmtp, XCLIENT: piece%2 == 0}
		whole, injected := converse(t, cfg, int(way), secure, in, len(in)+1000)
		cut, injected2 := converse(t, cfg, int(way), secure, in, int(piece)+1)
		if injected || injected2 || bytes.Contains(whole.Out, []byte("554 5.5.0 Nothing may follow")) {
			return
		}
		if !bytes.Equal(whole.Out, cut.Out) || whole.Closed != cut.Closed {
			t.Fatalf("way %d\nwhole: %q\ncut:   %q", way, whole.Out, cut.Out)
		}
		if !bytes.HasPrefix(cut.Up, whole.Up) {
			t.Fatalf("way %d\nwhole: %q\ncut:   %q", way, whole.Up, cut.Up)
		}
	})
}

// FuzzOffer: what a client may see of a line of a backend's list is the line, or AUTH
// without mechanisms that do not work through us, and fits a reply line.
func FuzzOffer(f *testing.F) {
	for _, s := range []string{"SIZE 1", "STARTTLS", "AUTH PLAIN SCRAM-SHA-256-PLUS EXTERNAL", "auth=external LOGIN", "XCLIENT ADDR", "AUTH", "", "DSN\x00"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, secured bool) {
		got := offer(text, secured)
		if got == "" {
			return
		}
		keyword, params, _ := strings.Cut(strings.ToUpper(got), " ")
		auth := keyword == "AUTH" || strings.HasPrefix(keyword, "AUTH=")
		switch {
		case len(got) > maxOffer, strings.ContainsAny(got, "\r\n\x00"):
			t.Fatalf("%q: %q", text, got)
		case !auth && (got != text || !offers[keyword]), auth && !secured:
			t.Fatalf("%q: %q", text, got)
		case auth:
			for m := range strings.FieldsSeq(strings.TrimPrefix(keyword, "AUTH=") + " " + params) {
				if m == "EXTERNAL" || strings.HasSuffix(m, "-PLUS") {
					t.Fatalf("%q: %q", text, got)
				}
			}
		}
	})
}
