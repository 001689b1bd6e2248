package codectest

import (
	"bytes"
	"cmp"
	"strings"
	"testing"

	"starttlsd/codec"
)

// Fuzz checks a relayed session for any input of either side, from the start in
// plaintext and under TLS:
//
//   - input that is cut at every byte has the client told the same as whole input, as
//     far as either goes on, and the backend sent a beginning of the same: of content
//     that is refused it may get more;
//   - the backend gets no command before login that Never matches;
//   - the contract of codec.Relayed is kept: the Driver panics.
//
// Data connections get on between the segments.
type Fuzz struct {
	Session func(implicit bool) codec.Session
	Greet   string                      // what the backend greets with
	Reply   func(line string) []string  // what it says to a line while it is introduced to
	Never   func(line string) bool      // what may not be said to the backend before login; may be nil
	Inside  func(cmd, line string) bool // line, sent behind cmd, is a part of it and may be anything; may be nil
	Parting byte                        // of segments; 0: octet 0xff
	Seeds   []string                    // segments, alternately of the client and of the backend
}

// Run adds the seeds and fuzzes.
func (z Fuzz) Run(f *testing.F) {
	for _, seed := range z.Seeds {
		f.Add(true, []byte(seed))
		f.Add(false, []byte(seed))
	}
	f.Fuzz(func(t *testing.T, secured bool, in []byte) {
		if len(in) > 20_000 {
			return
		}
		whole, cut := z.converse(t, secured, in, len(in)+1), z.converse(t, secured, in, 1)
		if whole == nil || cut == nil { // plaintext behind STARTTLS: what is cut ends otherwise
			return
		}
		for what, pair := range map[string][2][]byte{told: {whole.Out, cut.Out}, "the backend is sent": {whole.Up, cut.Up}} {
			n := min(len(pair[0]), len(pair[1]))
			same := len(pair[0]) == len(pair[1]) || whole.Closed || cut.Closed || what != told
			if !bytes.Equal(pair[0][:n], pair[1][:n]) || !same {
				t.Fatalf("%s %.2000q, and when cut %.2000q", what, pair[0], pair[1])
			}
		}
	})
}

const told = "the client is told"

// converse has a session hear all segments, in pieces. It returns nil when plaintext
// stands behind a STARTTLS.
func (z Fuzz) converse(t *testing.T, secured bool, in []byte, piece int) *Driver {
	d := Connect(z.Session(secured), secured)
	w := watch{Fuzz: z, t: t}
	z.dial(t, d)
	for i, segment := range bytes.Split(in, []byte{cmp.Or(z.Parting, 0xff)}) {
		for len(segment) > 0 && !d.Closed {
			n := min(piece, len(segment))
			p := bytes.Clone(segment[:n])
			segment = segment[n:]
			switch {
			case i%2 == 0 && d.Awaits:
				return nil
			case i%2 == 0:
				d.Send(p)
			case d.Connected:
				d.Receive(p)
			}
			z.dial(t, d)
			w.look(d)
		}
		if d.Awaits && !d.Closed {
			d.Handshake()
			z.dial(t, d)
		}
		z.getOn(d, i)
	}
	return d
}

// getOn brings the data connections further; every third transfer fails.
func (z Fuzz) getOn(d *Driver, i int) {
	switch s := d.Data.State(); {
	case s == codec.DataConnecting && i%5 == 4:
		d.Become(codec.DataFailed, codec.FaultNoClient)
	case s == codec.DataConnecting:
		d.Become(codec.DataConnected, codec.NoFault)
	case s == codec.DataMoving && i%3 == 2:
		d.Become(codec.DataFailed, codec.FaultTruncated)
	case s == codec.DataMoving:
		d.Become(codec.DataDone, codec.NoFault)
	}
}

// dial does what a session has asked for, with a backend that means well.
func (z Fuzz) dial(t *testing.T, d *Driver) {
	if d.Dialing && !d.Closed {
		if err := d.Introduce(&willing{z: z, said: []string{z.Greet}}); err != nil {
			t.Fatal(err)
		}
	}
}

// watch looks at the lines that the backend is sent, while there is a dialogue.
type watch struct {
	Fuzz
	t    *testing.T
	seen int    // octets
	cmd  string // the last line that was no part of another
}

func (w *watch) look(d *Driver) {
	for !d.Opaque && w.Never != nil {
		line, _, whole := bytes.Cut(d.Up[w.seen:], []byte("\r\n"))
		if !whole {
			return
		}
		w.seen += len(line) + len("\r\n")
		switch text := string(line); {
		case w.Inside == nil || !w.Inside(w.cmd, text):
			if w.cmd = text; w.Never(text) {
				w.t.Fatalf("the backend is sent %q", text)
			}
		case text == ".":
			w.cmd = ""
		}
	}
}

// SASL is for Fuzz.Inside: the responses of an exchange that a command with this prefix
// has begun, bare or as ManageSieve has them. Some look like commands.
func SASL(prefix string) func(cmd, line string) bool {
	return func(cmd, line string) bool {
		return len(cmd) >= len(prefix) && strings.EqualFold(cmd[:len(prefix)], prefix) &&
			(codec.IsSASLResponse([]byte(line)) || strings.ContainsAny(line[:1], `"{`))
	}
}

// willing is a backend that introduces itself well.
type willing struct {
	z    Fuzz
	said []string
}

func (w *willing) ReadLine() ([]byte, error) {
	if len(w.said) == 0 {
		panic("the backend is waited for, and owes nothing")
	}
	lines := strings.SplitN(w.said[0], "\r\n", 2)
	if w.said = w.said[1:]; len(lines) > 1 {
		w.said = append([]string{lines[1]}, w.said...)
	}
	return []byte(lines[0]), nil
}

func (w *willing) Write(p []byte) (int, error) {
	w.said = append(w.said, w.z.Reply(strings.TrimRight(string(p), "\r\n"))...)
	return len(p), nil
}

func (w *willing) Read([]byte) (int, error) { panic("not to be read from") }
func (w *willing) MustStartTLS() bool       { return false }
func (w *willing) Secure() bool             { return false }
func (w *willing) StartTLS() error          { panic("not asked for") }
