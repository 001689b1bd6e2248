package config

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLogArrivesInOrderAndWhole(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log, flush := (&Log{Level: "info", Format: format}).Open(&b)
		for i := range 100 {
			log.Info("line", "i", i)
			log.Debug("not this one")
		}
		flush()
		log.Info("too late")
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		for i, line := range lines {
			if !strings.Contains(line, "line") || !strings.Contains(strings.NewReplacer(`"`, "", ":", "=").Replace(line), fmt.Sprintf("i=%d", i)) {
				t.Errorf("%s, line %d: %q", format, i, line)
			}
		}
		if len(lines) != 100 {
			t.Errorf("%s: %d lines", format, len(lines))
		}
	}
}

// stuck is a log that nobody reads, until it is let go.
type stuck struct {
	bytes.Buffer
	let chan struct{}
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.let
	return s.Buffer.Write(p)
}

func TestLogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{let: make(chan struct{})}
		log, flush := (&Log{Level: "info", Format: "text"}).Open(w)
		const sent = logQueue / len("level=INFO msg=flood\n")
		log.Info("first")
		time.Sleep(2 * logPause)
		for range sent {
			log.Info("flood")
		}
		close(w.let)
		time.Sleep(2 * logPause)
		log.Info("room again")
		flush()
		kept := strings.Count(w.String(), "flood")
		want := fmt.Sprintf("lines=%d\n", sent-kept)
		if kept < sent/3 || kept == sent || !strings.Contains(w.String(), want) || !strings.Contains(w.String(), "room again") {
			t.Errorf("%d kept, %q not said", kept, want)
		}
	})
}

func TestFlushGivesUpOnAStuckLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{let: make(chan struct{})}
		log, flush := (&Log{Level: "info", Format: "text"}).Open(w)
		log.Info("x")
		flush() // returns, or the test is deadlocked
		close(w.let)
	})
}

// What explains a crash must not wait for company.
func TestWarningsAreWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log, flush := (&Log{Level: "info", Format: "text"}).Open(&b)
		defer flush()
		log.Info("before it")
		synctest.Wait()
		if b.Len() > 0 {
			t.Error("written alone: ", b.String())
		}
		log.With("a", 1).WithGroup("g").Warn("trouble", "b", 2)
		synctest.Wait()
		if got := b.String(); !strings.Contains(got, "before it") || !strings.Contains(got, "trouble a=1 g.b=2") {
			t.Errorf("%q", got)
		}
	})
}
