package smtp

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"starttlsd/codec"
)

// Scripts are conversations, one attack or matter a file. Each is run with
// its input whole and split at every byte, in plaintext and on a session that is
// under TLS from the start. The language:
//
//	C: line        the client sends line and CRLF
//	C> bytes       the client sends bytes, with the escapes of Go, and nothing more;
//	               C lines that follow each other are one segment
//	C* n bytes     bytes, n times
//	S: line        the server answers exactly that
//	S~ regexp      the server answers a line that matches all of regexp
//	TLS            the handshake succeeds
//	CLOSED         the server has ended the connection
//	GONE           the client has
//	REFUSE reason  the engine turns the client away: busy, draining, timeout, internal
//	M: line, M> bytes, M* n bytes   the next message that was delivered, whole:
//	               M lines that follow each other are one message
//	SET name       a setting: see settings
//	ONLY plain|secure|whole         the ways to run the script
//
// Behind the last line nothing may be left unsaid, undelivered or unfinished.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/script/*.txt")
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
						runScript(t, string(text), secure, split)
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

// settings are what SET changes before the connection.
var settings = map[string]func(*script){
	"require-tls":  func(s *script) { s.cfg.RequireTLS = true },
	"no-tls":       func(s *script) { s.cfg.TLS = false },
	"no-slots":     func(s *script) { s.noSlots = true },
	"size-100":     func(s *script) { s.cfg.MaxMessageSize = 100 },
	"two-mails":    func(s *script) { s.cfg.Limits.Messages = 2 },
	"two-rcpts":    func(s *script) { s.cfg.Limits.Recipients = 2 },
	"two-hops":     func(s *script) { s.cfg.MaxReceived = 2 },
	"ten-junk":     func(s *script) { s.cfg.Limits.JunkCommands = 10 },
	"disk-full":    func(s *script) { s.mem.begin = fmt.Errorf("open: %w", ErrFull) },
	"disk-fills":   func(s *script) { s.mem.write = fmt.Errorf("write: %w", ErrFull); s.mem.room = 20 },
	"disk-broken":  func(s *script) { s.mem.commit = fmt.Errorf("fsync: input/output error") },
	"backend-size": func(s *script) { s.mem.write = ErrTooBig },
}

type script struct {
	*client
	t       *testing.T
	cfg     *Config
	mem     *memory
	noSlots bool
	split   bool
	at      int // line number
	segment []byte
	expect  []byte // the message that M lines describe, nil without any
	mails   int    // that were compared
}

func runScript(t *testing.T, text string, secure, split bool) {
	s := &script{t: t, mem: &memory{}, split: split}
	s.cfg = testConfig(s.mem)
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "SET "); ok {
			settings[name](s)
		}
	}
	s.client = connect(s.cfg, secure)
	s.client.noSlots = s.noSlots
	for i, line := range lines {
		s.at = i + 1
		s.line(line)
	}
	s.flush()
	s.compare()
	if len(s.out) > 0 {
		t.Errorf("said besides: %q", s.out)
	}
	if s.mails != len(s.mem.mails) {
		t.Errorf("%d messages were delivered, want %d", len(s.mem.mails), s.mails)
	}
	if !s.closed {
		s.close()
	}
	if finished := len(s.mem.mails) + s.mem.aborted; finished != s.mem.opened && s.mem.commit == nil {
		t.Errorf("%d messages were begun, %d finished", s.mem.opened, finished)
	}
}

func (s *script) line(line string) {
	verb, arg, _ := strings.Cut(line, " ")
	if !strings.HasPrefix(verb, "C") || verb == "CLOSED" {
		s.flush()
	}
	if !strings.HasPrefix(verb, "M") {
		s.compare()
	}
	switch verb {
	case "C:", "C>", "C*":
		s.segment = append(s.segment, s.bytes(verb, arg)...)
	case "M:", "M>", "M*":
		s.expect = append(append(make([]byte, 0), s.expect...), s.bytes(verb, arg)...)
	case "S:":
		if got := s.reply(); got != arg {
			s.fatalf("%q, want %q", got, arg)
		}
	case "S~":
		if got := s.reply(); !regexp.MustCompile("^(?:" + arg + ")$").MatchString(got) {
			s.fatalf("%q, want %q", got, arg)
		}
	case "TLS":
		if !s.awaits {
			s.fatalf("no go-ahead was given")
		}
		s.handshake()
	case "CLOSED":
		if !s.closed {
			s.fatalf("not closed")
		}
	case "GONE":
		s.close()
	case "REFUSE":
		reason := map[string]codec.Refusal{
			"busy": codec.Busy, "draining": codec.Draining, "timeout": codec.TimedOut, "internal": codec.Internal,
		}[arg]
		s.out = s.s.Refuse(reason, s.out)
		s.close()
	case "SET", "ONLY", "#", "":
	default:
		s.fatalf("%q is not in the language", line)
	}
}

// bytes is the meaning of what is behind a colon, > or *.
func (s *script) bytes(verb, arg string) string {
	n := 1
	switch verb[1] {
	case ':':
		return arg + "\r\n"
	case '*':
		count, rest, _ := strings.Cut(arg, " ")
		n, _ = strconv.Atoi(count)
		arg = rest
	}
	text, err := strconv.Unquote(`"` + arg + `"`)
	if err != nil {
		s.fatalf("%q: %v", arg, err)
	}
	return strings.Repeat(text, n)
}

// flush sends the segment.
func (s *script) flush() {
	segment := s.segment
	s.segment = nil
	piece := len(segment)
	if s.split {
		piece = 1
	}
	for len(segment) > 0 {
		s.send(segment[:piece])
		segment = segment[piece:]
	}
}

func (s *script) reply() string {
	line, rest, ok := strings.Cut(string(s.out), "\r\n")
	if !ok {
		s.fatalf("the server says nothing")
	}
	s.out = []byte(rest)
	return line
}

// compare looks at the message that M lines have described.
func (s *script) compare() {
	if s.expect == nil {
		return
	}
	if s.mails >= len(s.mem.mails) {
		s.fatalf("no message was delivered")
	}
	if got, want := s.mem.mails[s.mails].content, string(s.expect); got != want {
		s.fatalf("delivered %.300q, want %.300q", got, want)
	}
	s.mails++
	s.expect = nil
}

func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("line %d: %s", s.at, fmt.Sprintf(format, args...))
}
