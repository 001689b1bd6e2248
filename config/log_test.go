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
		log := (&Log{Level: "info", Format: format}).Open(&b)
		for i := range 100 {
			log.Info("line", "i", i)
			log.Debug("not this one")
		}
		log.Flush()
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
		log := (&Log{Level: "info", Format: "text"}).Open(w)
		const sent = logQueue / len("level=INFO msg=flood\n")
		log.Info("first")
		time.Sleep(2 * logPause)
		for range sent {
			log.Info("flood")
		}
		close(w.let)
		time.Sleep(2 * logPause)
		log.Info("room again")
		log.Flush()
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
		log := (&Log{Level: "info", Format: "text"}).Open(w)
		log.Info("x")
		log.Flush() // returns, or the test is deadlocked
		close(w.let)
	})
}

// What explains a crash must not wait for company.
func TestWarningsAreWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := (&Log{Level: "info", Format: "text"}).Open(&b)
		defer log.Flush()
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

func TestFloodOfOneKindIsCutAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := (&Log{Level: "info", Format: "text", Rate: 10, Burst: 100}).Open(&b)
		for range 5000 {
			log.Info("connection", "reason", "reset")
		}
		log.Info("connection", "reason", "done") // another kind
		log.Warn("connection", "id", 1)          // and another
		time.Sleep(summaryEvery + time.Second)   // the flood is over: it is told all the same
		for range 2 {
			log.Info("connection", "reason", "reset")
		}
		log.Flush()
		text := b.String()
		for line, want := range map[string]int{
			"msg=connection reason=reset": 102,
			"msg=connection reason=done":  1,
			"msg=connection id=1":         1,
			`msg="log lines of a kind were left out" kind="connection: reset" lines=4900`: 1,
			"left out": 1,
		} {
			if got := strings.Count(text, line); got != want {
				t.Errorf("%d times %s, want %d", got, line, want)
			}
		}
	})
}

func TestSamplingAndLevelChangeWhileLogging(t *testing.T) {
	var b bytes.Buffer
	log := (&Log{Level: "warn", Format: "text", Rate: 1, Burst: 1}).Open(&b)
	log.Warn("a")
	log.Warn("a")
	log.Info("quiet")
	log.Set(&Log{Level: "debug", Rate: 1, Burst: 0})
	for range 100 {
		log.Debug("a")
	}
	log.Flush()
	text := b.String()
	if n := strings.Count(text, "msg=a\n"); n != 101 || strings.Contains(text, "quiet") {
		t.Errorf("%d lines of 101: %s", n, text)
	}
	if !strings.Contains(text, "kind=a lines=1\n") {
		t.Error("what was left out before is not told of")
	}
}
