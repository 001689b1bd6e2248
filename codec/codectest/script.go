package codectest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"starttlsd/codec"
)

// Suite is what the scripts of a protocol have in common.
type Suite[C any] struct {
	Config   func() *C                        // the configuration that scripts begin with
	Session  func(*C, bool) codec.Session     // a new session; on an implicit-TLS listener if the bool is set
	Settings map[string]func(*C)              // what SET changes before the connection
	Verbs    map[string]func(*Script, string) // added to the language
	Done     func(*Script)                    // called at the end of each script; may be nil
}

// Run runs the files that match glob. Scripts are conversations, one attack or
// matter a file. Each is run with all input whole and split at every byte, in
// plaintext and on a session that is under TLS from the start. The language:
//
//	C: line        the client sends line and CRLF
//	C> bytes       the client sends bytes, with the escapes of Go, and nothing more;
//	               C lines that follow each other are one segment
//	C* n bytes     bytes, n times
//	S: line        the server answers exactly that
//	S~ regexp      the server answers a line that matches all of regexp
//	S> bytes, S* n bytes   the server sends exactly these bytes next
//	TLS            the handshake succeeds
//	CLOSED         the server has ended the connection
//	GONE           the client has
//	REFUSE reason  the engine turns the client away: busy, draining, timeout, internal, unavailable
//	SET name       a setting: see Suite. Of every protocol: no-slots, STARTTLS cannot be served
//	ONLY plain|secure|whole         the ways to run the script
//
// And with a backend:
//
//	DIAL [starttls]  the session has asked for its backend and meets it; with
//	               starttls one that has to be upgraded. The B and R lines up to
//	               CONNECTED or FAILED are what Introduce and the backend say, and
//	               BTLS is the handshake with it
//	CONNECTED      Introduce has succeeded
//	FAILED         it has not, and the client is refused
//	B: B~ B> B*    the backend gets that, as with S
//	R: R> R*       the backend says that, as with C
//	LOST           the backend ends the connection
//	HUNGUP         the backend was left for STARTTLS
//	OPAQUE         bytes are carried across unseen from here on
//	D: call        the session has called its data connections, as "listen 3000",
//	               "aim 4000 3000", "connect down secure", "start", "abort" or, for a
//	               transfer that is not over, "cut"
//	DATA state     they are now connected, done, or with the name of a fault failed
//
// Behind the last line nothing may be left unsaid or undelivered.
func (s Suite[C]) Run(t *testing.T, glob string) {
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		for _, secure := range []bool{false, true} {
			for _, split := range []bool{false, true} {
				if only(string(text), secure, split) {
					t.Run(fmt.Sprintf("%s/secure=%v/split=%v", name, secure, split), func(t *testing.T) {
						s.script(t, string(text), secure, split)
					})
				}
			}
		}
	}
}

func only(text string, secure, split bool) bool {
	skip := secure && strings.Contains(text, "ONLY plain") ||
		!secure && strings.Contains(text, "ONLY secure") ||
		split && strings.Contains(text, "ONLY whole")
	return !skip
}

// Script is a script that is being run.
type Script struct {
	*Driver
	T *testing.T

	lines    []string
	at       int // index of the present line
	split    bool
	segment  []byte
	received []byte // of R lines
	hungUp   int
}

func (s Suite[C]) script(t *testing.T, text string, secure, split bool) {
	cfg := s.Config()
	noSlots := false
	sc := &Script{T: t, split: split, lines: strings.Split(strings.TrimSuffix(text, "\n"), "\n")}
	for _, line := range sc.lines {
		name, ok := strings.CutPrefix(line, "SET ")
		switch set := s.Settings[name]; {
		case !ok:
		case name == "no-slots":
			noSlots = true
		case set == nil:
			t.Fatalf("%s: there is no such setting", line)
		default:
			set(cfg)
		}
	}
	sc.Driver = Connect(s.Session(cfg, secure), secure)
	sc.NoSlots = noSlots
	for sc.at < len(sc.lines) {
		verb, arg, _ := strings.Cut(sc.lines[sc.at], " ")
		if add := s.Verbs[verb]; add != nil {
			sc.flush()
			add(sc, arg)
		} else {
			sc.line(verb, arg)
		}
		sc.at++
	}
	sc.flush()
	if s.Done != nil {
		s.Done(sc)
	}
	if len(sc.Out) > 0 {
		t.Errorf("said besides: %.1000q", sc.Out)
	}
	if len(sc.Up) > 0 {
		t.Errorf("the backend got besides: %.1000q", sc.Up)
	}
	if len(sc.Data.Calls) > 0 {
		t.Errorf("the data connections were told besides: %q", sc.Data.Calls)
	}
	sc.Close()
}

var refusals = map[string]codec.Refusal{
	"busy": codec.Busy, "draining": codec.Draining, "timeout": codec.TimedOut,
	"internal": codec.Internal, "unavailable": codec.Unavailable,
}

func (s *Script) line(verb, arg string) {
	switch verb {
	case "C:", "C>", "C*":
		s.flushReplies()
		s.segment = append(s.segment, s.Bytes(verb, arg)...)
		return
	case "R:", "R>", "R*":
		s.flushCommands()
		s.received = append(s.received, s.Bytes(verb, arg)...)
		return
	}
	s.flush()
	switch verb {
	case "S:", "S~", "S>", "S*":
		s.Expect("the server", &s.Out, verb, arg)
	case "B:", "B~", "B>", "B*":
		s.Expect("the backend is sent", &s.Up, verb, arg)
	case "TLS":
		s.must(s.Awaits, "no go-ahead was given")
		s.Handshake()
	case "CLOSED":
		s.must(s.Closed, "not closed")
	case "GONE":
		s.Close()
	case "REFUSE":
		s.Refuse(refusals[arg])
	case "DIAL":
		s.dial(arg == "starttls")
	case "LOST":
		s.must(s.Connected && !s.Closed, "there is no backend")
		s.Lose()
	case "HUNGUP":
		s.hungUp++
		s.must(s.HungUp == s.hungUp, "the backend was not left")
	case "OPAQUE":
		s.must(s.Opaque, "not opaque")
	case "D:":
		s.must(len(s.Data.Calls) > 0 && s.Data.Calls[0] == arg, fmt.Sprintf("the data connections were told %q", s.Data.Calls))
		s.Data.Calls = s.Data.Calls[1:]
	case "DATA":
		become, ok := states[arg]
		s.must(ok, "there is no such state")
		s.Become(become.state, become.fault)
	case "SET", "ONLY", "#", "":
	default:
		s.Fatalf("%q is not in the language", verb)
	}
}

// dial has the session introduced to a backend that says what the lines up to
// CONNECTED or FAILED say.
func (s *Script) dial(starttls bool) {
	s.must(s.Dialing, "the session did not ask for its backend")
	u := &upstream{script: s, must: starttls}
	err := s.Introduce(u)
	s.at++
	for s.at < len(s.lines) && (strings.HasPrefix(s.lines[s.at], "#") || s.lines[s.at] == "") {
		s.at++
	}
	if s.at >= len(s.lines) {
		s.at--
	}
	switch end := s.lines[s.at]; {
	case end == "CONNECTED" && err == nil, end == "FAILED" && err != nil:
	default:
		s.Fatalf("Introduce returned %v before %q", err, end)
	}
}

// upstream is the backend of a script while the session is introduced.
type upstream struct {
	script *Script
	must   bool
	secure bool
	said   []byte // by the backend, not read yet
	got    []byte // by the backend, not compared yet
}

// next is the next line of the script if it is one of the verbs.
func (u *upstream) next(verbs ...string) (verb, arg string, ok bool) {
	s := u.script
	for i := s.at + 1; i < len(s.lines); i++ {
		verb, arg, _ = strings.Cut(s.lines[i], " ")
		if verb == "#" || verb == "" {
			continue
		}
		for _, v := range verbs {
			if verb == v {
				s.at = i
				return verb, arg, true
			}
		}
		break
	}
	return "", "", false
}

func (u *upstream) fill() error {
	if len(u.got) > 0 {
		u.script.Fatalf("the backend is sent besides: %q", u.got)
	}
	for {
		verb, arg, ok := u.next("R:", "R>", "R*")
		if !ok {
			break
		}
		u.said = append(u.said, u.script.Bytes(verb, arg)...)
	}
	if len(u.said) == 0 {
		return errors.New("the backend says nothing")
	}
	return nil
}

func (u *upstream) ReadLine() ([]byte, error) {
	line, rest, ok := strings.Cut(string(u.said), "\n")
	if !ok {
		if err := u.fill(); err != nil {
			return nil, err
		}
		if line, rest, ok = strings.Cut(string(u.said), "\n"); !ok {
			return nil, errors.New("the backend's line has no end")
		}
	}
	u.said = []byte(rest)
	return []byte(strings.TrimSuffix(line, "\r")), nil
}

func (u *upstream) Read(p []byte) (int, error) {
	if len(u.said) == 0 {
		if err := u.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, u.said)
	u.said = u.said[n:]
	return n, nil
}

func (u *upstream) Write(p []byte) (int, error) {
	u.got = append(u.got, p...)
	for len(u.got) > 0 {
		verb, arg, ok := u.next("B:", "B~", "B>", "B*")
		if !ok {
			u.script.Fatalf("the backend is sent %q", u.got)
		}
		u.script.Expect("the backend is sent", &u.got, verb, arg)
	}
	return len(p), nil
}

func (u *upstream) MustStartTLS() bool { return u.must }

func (u *upstream) StartTLS() error {
	if len(u.said) > 0 {
		return errors.New("plaintext behind the backend's go-ahead")
	}
	if _, _, ok := u.next("BTLS"); !ok {
		u.script.Fatalf("a handshake with the backend")
	}
	u.must, u.secure = false, true
	return nil
}

func (u *upstream) Secure() bool { return u.secure }

// Bytes is the meaning of what is behind a colon, > or *.
func (s *Script) Bytes(verb, arg string) string {
	n := 1
	switch verb[1] {
	case ':':
		return arg + "\r\n"
	case '*':
		count, rest, _ := strings.Cut(arg, " ")
		var err error
		if n, err = strconv.Atoi(count); err != nil {
			s.Fatalf("%q: %v", arg, err)
		}
		arg = rest
	}
	text, err := strconv.Unquote(`"` + arg + `"`)
	if err != nil {
		s.Fatalf("%q: %v", arg, err)
	}
	return strings.Repeat(text, n)
}

// Expect takes from the front of got what the line says.
func (s *Script) Expect(who string, got *[]byte, verb, arg string) {
	s.T.Helper()
	if verb[1] == '>' || verb[1] == '*' {
		want := s.Bytes(verb, arg)
		if !strings.HasPrefix(string(*got), want) {
			s.Fatalf("%s %.300q, want %.300q", who, *got, want)
		}
		*got = (*got)[len(want):]
		return
	}
	line, rest, ok := strings.Cut(string(*got), "\r\n")
	if !ok {
		s.Fatalf("%s no whole line: %.300q, want %q", who, *got, arg)
	}
	if verb[1] == ':' && line != arg || verb[1] == '~' && !regexp.MustCompile("^(?:"+arg+")$").MatchString(line) {
		s.Fatalf("%s %.300q, want %q", who, line, arg)
	}
	*got = []byte(rest)
}

func (s *Script) flush() {
	s.flushCommands()
	s.flushReplies()
}

// flushCommands sends the client's segment.
func (s *Script) flushCommands() {
	segment := s.segment
	s.segment = nil
	s.each(segment, s.Send)
}

// flushReplies sends the backend's.
func (s *Script) flushReplies() {
	received := s.received
	s.received = nil
	if len(received) > 0 {
		s.must(s.Connected, "there is no backend")
	}
	s.each(received, s.Receive)
}

func (s *Script) each(segment []byte, f func([]byte)) {
	if !s.split && len(segment) > 0 {
		f(segment)
		return
	}
	for i := range segment {
		f(segment[i : i+1 : i+1])
	}
}

func (s *Script) must(ok bool, problem string) {
	s.T.Helper()
	if !ok {
		s.Fatalf("%s", problem)
	}
}

// Fatalf ends the script at its present line.
func (s *Script) Fatalf(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("line %d: %s: %s", s.at+1, s.lines[min(s.at, len(s.lines)-1)], fmt.Sprintf(format, args...))
}
