package smtp

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"starttlsd/codec"
	"starttlsd/codec/codectest"
)

// scene is a receiver, and where its messages go.
type scene struct {
	cfg *Config
	mem *memory
}

// scripts adds to the language of codectest
//
//	M: line, M> bytes, M* n bytes   the next message that was delivered, whole:
//	               M lines that follow each other are one message
//
// Behind the last line no message may be left that was not looked at or not finished.
var scripts = codectest.Suite[scene]{
	Config: func() *scene {
		mem := &memory{}
		return &scene{testConfig(mem), mem}
	},
	Session: func(s *scene, _ bool) codec.Session { return New(s.cfg, &testPeer) },
	Settings: map[string]func(*scene){
		"require-tls":  func(s *scene) { s.cfg.RequireTLS = true },
		"no-tls":       func(s *scene) { s.cfg.TLS = false },
		"size-100":     func(s *scene) { s.cfg.MaxMessageSize = 100 },
		"two-mails":    func(s *scene) { s.cfg.Limits.Messages = 2 },
		"two-rcpts":    func(s *scene) { s.cfg.Limits.Recipients = 2 },
		"two-hops":     func(s *scene) { s.cfg.MaxReceived = 2 },
		"ten-junk":     func(s *scene) { s.cfg.Limits.JunkCommands = 10 },
		"disk-full":    func(s *scene) { s.mem.begin = fmt.Errorf("open: %w", ErrFull) },
		"disk-fills":   func(s *scene) { s.mem.write = fmt.Errorf("write: %w", ErrFull); s.mem.room = 20 },
		"disk-broken":  func(s *scene) { s.mem.commit = errors.New("fsync: input/output error") },
		"backend-size": func(s *scene) { s.mem.write = ErrTooBig },
	},
	Verbs: map[string]func(*codectest.Script, string){
		"M:": func(sc *codectest.Script, arg string) { compare(sc, sc.Bytes("M:", arg)) },
		"M>": func(sc *codectest.Script, arg string) { compare(sc, sc.Bytes("M>", arg)) },
		"M*": func(sc *codectest.Script, arg string) { compare(sc, sc.Bytes("M*", arg)) },
	},
	Done: finished,
}

func TestScripts(t *testing.T) { scripts.Run(t, "testdata/script/*.txt") }

func memoryOf(sc *codectest.Script) *memory { return sc.Session.(*Session).cfg.Backend.(*memory) }

// compare takes want from the front of the message that is looked at, or of the next.
func compare(sc *codectest.Script, want string) {
	m := memoryOf(sc)
	if m.rest == "" {
		if m.looked == len(m.mails) {
			sc.Fatalf("no message was delivered")
		}
		m.rest = m.mails[m.looked].content
		m.looked++
	}
	rest, ok := strings.CutPrefix(m.rest, want)
	if !ok {
		sc.Fatalf("delivered %.300q, want %.300q", m.rest, want)
	}
	m.rest = rest
}

func finished(sc *codectest.Script) {
	m := memoryOf(sc)
	sc.Close()
	if m.rest != "" || m.looked != len(m.mails) {
		sc.T.Errorf("delivered besides: %.300q and %d messages", m.rest, len(m.mails)-m.looked)
	}
	if n := len(m.mails) + m.aborted; n != m.opened && m.commit == nil {
		sc.T.Errorf("%d messages were begun, %d finished", m.opened, n)
	}
}
