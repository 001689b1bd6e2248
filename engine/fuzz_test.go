package engine

import (
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"starttlsd/codec"
	"starttlsd/codec/smtp"
	"starttlsd/tlsbridge/tlstest"
)

var (
	replyLine = regexp.MustCompile(`^[2-5][0-9][0-9][ -][\x20-\x7e]*$`)
	goAhead   = []byte("220 2.0.0 Ready to start TLS\r\n")
)

// FuzzUpgrade talks to an engine with SMTP sessions over loopback: some bytes,
// STARTTLS, some bytes behind it, cut in two anywhere, then a TLS handshake, and
// some bytes under TLS. It holds:
//   - what is said in plaintext is whole, well-formed reply lines;
//   - the go-ahead is said once at most, and nothing in plaintext follows it;
//   - with anything behind STARTTLS the handshake never succeeds;
//   - under TLS there are well-formed replies only, and STARTTLS is not offered;
//   - no panic, and every connection ends.
func FuzzUpgrade(f *testing.F) {
	for _, s := range []struct {
		before, behind, under string
		cut                   uint8
	}{
		{"EHLO a\r\n", "", "EHLO a\r\nNOOP\r\n", 3},
		{"EHLO a\r\n", "EHLO b\r\n", "", 200},
		{"EHLO a\r\n", "EHLO b\r\n", "", 18},
		{"EHLO a\r\nMAIL FROM:<a@b>\r\n", "", "RCPT TO:<a@b>\r\n", 0},
		{"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nDATA\r\n", "x\r\n.\r\n", "", 9},
		{"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<a@b>\r\nBDAT 20\r\n", "x", "MAIL FROM:<c@d>\r\n", 70},
		{"STARTTLS x\r\nSTARTTLS\r\n", "\x16\x03\x01", "", 22},
		{"NO", "", "STARTTLS\r\nQUIT\r\n", 1},
	} {
		f.Add([]byte(s.before), []byte(s.behind), []byte(s.under), s.cut)
	}
	addr := fuzzServer(f)
	f.Fuzz(func(t *testing.T, before, behind, under []byte, cut uint8) {
		if len(before)+len(behind)+len(under) > 4<<10 {
			return
		}
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		_ = nc.(*net.TCPConn).SetLinger(0) // many thousand connections: no TIME_WAIT
		_ = nc.SetDeadline(time.Now().Add(10 * time.Second))

		sent := append(append(bytes.Clone(before), "STARTTLS\r\n"...), behind...)
		at := min(int(cut), len(sent))
		_, _ = nc.Write(sent[:at])
		if cut%4 == 0 {
			time.Sleep(time.Millisecond)
		}
		_, _ = nc.Write(sent[at:])
		said, open := plaintext(nc)
		said, after, upgrading := bytes.Cut(said, goAhead)
		checkReplies(t, said)
		if len(after) > 0 && (after[0] != 0x15 || bytes.Contains(after, []byte("\r\n"))) {
			t.Fatalf("behind the go-ahead: %q", after) // an alert is TLS
		}
		if !open || !upgrading {
			return
		}
		tc := tls.Client(nc, tlstest.ClientConfig())
		if tc.Handshake() != nil {
			return
		}
		if len(behind) > 0 {
			t.Fatalf("upgraded with %q behind STARTTLS", behind)
		}
		_, _ = tc.Write(append(bytes.Clone(under), "\r\nEHLO z\r\n.\r\nQUIT\r\n"...))
		_ = tc.CloseWrite()
		secret, _ := io.ReadAll(tc)
		checkReplies(t, secret)
		if bytes.Contains(secret, []byte("STARTTLS\r\n")) {
			t.Fatalf("offered again: %q", secret)
		}
	})
}

// fuzzServer starts an engine that ends with f, and fails f for a panic.
func fuzzServer(f *testing.F) string {
	f.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	cfg := &smtp.Config{Hostname: "fuzz.example", TLS: true, Backend: nowhere{}}
	eng, err := New(Config{
		Listeners: []Listener{{
			Listener: ln, Name: "smtp", TLS: tlstest.ServerConfig(),
			NewSession: func(p *codec.Peer) codec.Session { return smtp.New(cfg, p) },
			Limits:     Limits{Command: 300 * time.Millisecond, Handshake: 300 * time.Millisecond, BodyStall: 200 * time.Millisecond, Linger: 100 * time.Millisecond},
		}},
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = eng.Close()
		if st := eng.Stats(); st.Panics != 0 || st.Open != 0 {
			f.Errorf("at the end: %+v", st)
		}
	})
	return ln.Addr().String()
}

// plaintext reads until the go-ahead, the end, or a short silence.
func plaintext(nc net.Conn) (said []byte, open bool) {
	buf := make([]byte, 4096)
	for !bytes.HasSuffix(said, goAhead) {
		_ = nc.SetReadDeadline(time.Now().Add(80 * time.Millisecond))
		n, err := nc.Read(buf)
		said = append(said, buf[:n]...)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			break
		}
		if err != nil {
			return said, false
		}
	}
	_ = nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	return said, true
}

func checkReplies(t *testing.T, said []byte) {
	t.Helper()
	lines := strings.SplitAfter(string(said), "\r\n")
	for i, line := range lines {
		if whole := strings.HasSuffix(line, "\r\n"); !whole && i == len(lines)-1 && line == "" {
			continue
		}
		if !replyLine.MatchString(strings.TrimSuffix(line, "\r\n")) {
			t.Fatalf("not a reply: %q", line)
		}
	}
}

// nowhere is a backend that keeps nothing.
type nowhere struct{}

func (nowhere) Begin(*smtp.Envelope) (smtp.Message, error) { return nowhere{}, nil }
func (nowhere) Write(p []byte) (int, error)                { return len(p), nil }
func (nowhere) Commit() error                              { return nil }
func (nowhere) Abort()                                     {}
