package report

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"starttlsd/bench/load"
)

// result has something of everything, and hostile text wherever a server or a
// user can put it.
func result(mode load.Mode) *load.Result {
	l := load.NewLatency()
	for i := range 2000 {
		l.Record(time.Duration(i) * time.Millisecond)
	}
	r := &load.Result{
		Mode: mode, Target: "smtp://<script>alert(1)</script>:25", Took: 3 * time.Second, Done: 2000, Connections: 64,
		TLS: "TLS 1.3", Latency: l, Failures: l,
		Errors:   map[load.Kind]int64{load.Wrong: 1},
		Examples: map[load.Kind]string{load.Wrong: "got \"500 <img src=http://evil.example>\x1b[2J\""},
		Server:   &load.Usage{CPU: time.Second, PSSBefore: 1 << 20, PSSAfter: 1 << 24, Processes: 1},
	}
	for i := range time.Duration(3) {
		r.Samples = append(r.Samples, load.Sample{At: (i + 1) * time.Second, Done: int64(i) * 1000, Errors: 1, Open: 64,
			CPU: time.Second / 3, PSS: 1 << 23, P99: i * time.Second})
	}
	for _, name := range map[load.Mode][]string{
		load.Storm: {"before", "during", "after"}, load.Hold: {"opening", "holding"}}[mode] {
		r.Phases = append(r.Phases, load.Phase{Name: name, Took: time.Second, Latency: l})
	}
	return r
}

var modes = []load.Mode{load.Upgrade, load.Hold, load.Chat, load.Mail, load.Storm, load.Transfer}

// outside is what would make a browser look elsewhere.
var outside = regexp.MustCompile(`(?i)https?://|src=|href|url\(|@import|<link|<script|<img`)

func TestPageNeedsNothingElseAndIsSafe(t *testing.T) {
	for _, mode := range modes {
		text, err := Page(result(mode))
		if err != nil {
			t.Fatal(err)
		}
		page := string(text)
		// What the server said may stand there as text; as markup it may not.
		said := "got &#34;500 &lt;img src=http://evil.example&gt;"
		if !strings.Contains(page, said) {
			t.Errorf("%s: the error is not there, escaped", mode)
		}
		if found := outside.FindString(strings.ReplaceAll(page, said, "")); found != "" {
			t.Errorf("%s: %s", mode, found)
		}
		if plots := strings.Count(page, "<svg"); plots != 6 {
			t.Errorf("%s: %d plots", mode, plots)
		}
		for svg := range strings.SplitSeq(page, "<svg") {
			if svg, _, ok := strings.Cut(svg, "</svg>"); ok {
				wellFormed(t, "<svg"+svg+"</svg>")
			}
		}
	}
}

func wellFormed(t *testing.T, text string) {
	t.Helper()
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		switch _, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			t.Fatalf("%v: %.200s", err, text)
		}
	}
}

func TestWriteMakesTheDirectory(t *testing.T) {
	name, err := Write(t.TempDir()+"/a/b", result(load.Upgrade))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(name); err != nil || !strings.HasSuffix(string(text), "</html>\n") {
		t.Errorf("%v: %.100s", err, text)
	}
}

func TestTextIsForATerminal(t *testing.T) {
	for _, mode := range modes {
		var b strings.Builder
		if err := Text(&b, result(mode)); err != nil {
			t.Fatal(err)
		}
		if text := b.String(); strings.ContainsRune(text, '\x1b') || strings.Count(text, "\n") > 24 {
			t.Errorf("%q", text)
		}
	}
}

func TestTextTellsWhatIsNotThere(t *testing.T) {
	r := result(load.Upgrade)
	r.Server.PSSBefore, r.Server.PSSAfter = 0, 0
	var b strings.Builder
	if err := Text(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"not readable; run as", "upgrade, succeeded  2000", "failed              2000"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s is not there: %s", want, b.String())
		}
	}
}

// A run that was cut at once, or whose operations have all failed, has no latency.
func TestEmptyResult(t *testing.T) {
	r := &load.Result{Mode: load.Upgrade, Latency: load.NewLatency(), Cut: true}
	if err := Text(io.Discard, r); err != nil {
		t.Error(err)
	}
	if _, err := Page(r); err != nil {
		t.Error(err)
	}
	r.Samples = make([]load.Sample, 3) // nothing, and in no time
	if _, err := Page(r); err != nil {
		t.Error(err)
	}
}

func TestDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                         "0",
		1500 * time.Nanosecond:    "1.5 µs",
		12345 * time.Microsecond:  "12.3 ms",
		999999 * time.Microsecond: "1 s",
		90 * time.Second:          "90 s",
		time.Hour:                 "1h0m0s",
	} {
		if got := duration(d); got != want {
			t.Errorf("%d ns: %s, want %s", d, got, want)
		}
	}
}
