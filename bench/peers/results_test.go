package peers

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample are results in which starttlsd wins here and loses there.
func sample() *Results {
	r := &Results{Contestants: []Participant{{Name: own}, {Name: "postfix", Skipped: "not installed"}}}
	for _, f := range []struct {
		metric, server string
		samples        []float64
	}{
		{"upgrade-cpu", own, []float64{320e3, 300e3, 310e3}},
		{"upgrade-cpu", "goroutine", []float64{400e3, 390e3, 1400e3}},
		{"upgrade-cpu", floor, []float64{200e3, 201e3, 199e3}},
		{"idle-plain", own, []float64{1024, 1000, 1030}},
		{"chat-rate", own, []float64{43_000}},
		{"chat-rate", "goroutine", []float64{40_000}},
		{"capacity-held", own, []float64{17_999}},
		{"capacity-lost", own, []float64{0}},
	} {
		for _, v := range f.samples {
			r.add(f.metric, f.server, v)
		}
	}
	r.summarise()
	return r
}

func TestTargetsAreJudgedByMedians(t *testing.T) {
	verdicts := make(map[string]Verdict)
	for _, v := range sample().Verdicts {
		verdicts[strings.TrimSpace(v.Metric+" "+v.Against)] = v
	}
	for name, want := range map[string]struct{ reached, missing bool }{
		"upgrade-cpu goroutine": {true, false},
		"upgrade-cpu floor":     {false, false},
		"upgrade-cpu nginx":     {false, true},
		"idle-plain":            {true, false}, // just so
		"chat-rate goroutine":   {true, false},
		"capacity-held":         {false, false},
		"capacity-lost":         {true, false},
		"capacity-served":       {false, true},
	} {
		if v, ok := verdicts[name]; !ok || v.Reached != want.reached || v.Missing != want.missing {
			t.Errorf("%s: %+v, want %+v", name, v, want)
		}
	}
}

func TestAQuickRunJudgesNothing(t *testing.T) {
	r := sample()
	r.Header.Quick = true
	r.summarise()
	if len(r.Verdicts) > 0 || strings.Contains(Text(r), "target") {
		t.Errorf("judged: %v", r.Verdicts)
	}
}

func TestTableTellsWhereWeAreSlower(t *testing.T) {
	table := Table(sample())
	for _, line := range []string{
		"|  | starttlsd | a goroutine a connection | crypto/tls alone |",
		"| CPU of the server for one upgrade | 310 µs | 400 µs (× 0.78) | 200 µs (× 1.55) |",
		"| round trips a second, upgraded sessions | 43,000 | 40,000 (× 1.07) | – |",
		"| CPU of the server for one upgrade | at most × 0.85 of a goroutine a connection | × 0.78 | yes |",
		"| CPU of the server for one upgrade | at most × 1.35 of crypto/tls alone | × 1.55 | **no** |",
		"| CPU of the server for one upgrade | at most × 0.65 of nginx | – | – |",
		"| idle connection, plaintext | at most 1 KB | 1.00 KB | yes |",
		"| upgraded connections held to the end | at least 18,000 | 17,999 | **no** |",
	} {
		if !strings.Contains(table, line+"\n") {
			t.Errorf("no line %s in\n%s", line, table)
		}
	}
}

func TestTextNamesWhatWasSkipped(t *testing.T) {
	if text := Text(sample()); !strings.Contains(text, "# postfix: skipped: not installed\n") {
		t.Error(text)
	}
}

func TestBenchstatHasALineForEachRound(t *testing.T) {
	text := Benchstat(sample())
	for _, line := range []string{
		"BenchmarkPeerUpgrade/server=goroutine 1 1.4e+06 server-ns/op\n",
		"BenchmarkPeerIdle/state=plain/server=starttlsd 1 1030 PSS-B/conn\n",
		"BenchmarkPeerCapacity/server=starttlsd 1 17999 held 0 lost\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
	if n := strings.Count(text, "Upgrade/server=starttlsd "); n != 3 {
		t.Errorf("%d lines for 3 rounds", n)
	}
}

func TestSavedResultsComeBack(t *testing.T) {
	dir, r := t.TempDir(), sample()
	if err := writeResults(r, dir); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := TableMain(t.Context(), []string{"-results", filepath.Join(dir, "results.json")}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if out.String() != Table(r) {
		t.Errorf("got %s", &out)
	}
	for _, name := range []string{"results.txt", "benchstat.txt", "upgrade.svg", "memory.svg"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "storm.svg")); err == nil {
		t.Error("a plot of nothing")
	}
}

func TestResultsWithoutAnyFigureCanBeSaved(t *testing.T) {
	r := new(Results)
	r.summarise()
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
	Text(r)
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for _, test := range []struct {
		v    float64
		u    unit
		want string
	}{
		{412_345, nanoseconds, "412 µs"},
		{999_700, nanoseconds, "1.00 ms"},
		{15.04e6, nanoseconds, "15.0 ms"},
		{2e9, nanoseconds, "2.00 s"},
		{9216, bytesEach, "9.00 KB"},
		{1.7 * (1 << 20), bytesEach, "1.70 MB"},
		{1234567, perSecond, "1,234,567"},
		{0, number, "0"},
		{-1234, number, "-1,234"},
		{-999, number, "-999"},
		{0.646, ratio, "× 0.65"},
	} {
		if got := format(test.v, test.u); got != test.want {
			t.Errorf("format(%v, %s) = %q, want %q", test.v, test.u, got, test.want)
		}
	}
}
