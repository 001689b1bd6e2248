package load

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"
)

func TestResultSurvivesJSON(t *testing.T) {
	l := NewLatency()
	for i := range 1000 {
		l.Record(time.Duration(i*i) * time.Microsecond)
	}
	l.Record(2 * time.Hour) // out of range
	res := &Result{
		Mode: Storm, Target: "smtp://127.0.0.1:25", Began: time.Now().UTC(), Took: time.Second, Done: 5, Failures: l,
		Errors: map[Kind]int64{Wrong: 1}, Examples: map[Kind]string{Wrong: "got \"500\""}, Latency: l,
		Phases:  []Phase{{"before", time.Second, l}, {"during", time.Second, NewLatency()}},
		Samples: []Sample{{At: time.Second, Done: 5}}, Server: &Usage{CPU: time.Second},
	}
	text, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("%v: %s became %s", err, text, again)
	}
	for _, p := range []float64{0, 50, 99.9, 100} {
		if got, want := back.Latency.Percentile(p), l.Percentile(p); got != want {
			t.Errorf("percentile %g: %v became %v", p, want, got)
		}
	}
	if l.Max() < time.Hour || l.Max() > time.Hour+time.Hour/1000 {
		t.Errorf("two hours became %v", l.Max())
	}
}
