package peers

import (
	"encoding/json"
	"math"
	"os"
	"time"
)

// Results are what a run has measured, raw and summarised.
type Results struct {
	Header      Header        `json:"header"`
	Contestants []Participant `json:"contestants"`
	Figures     []*Figure     `json:"figures"`
	Verdicts    []Verdict     `json:"verdicts,omitempty"` // none of a quick run
	Notes       []string      `json:"notes,omitempty"`    // what went wrong, or has to be known
}

// Header says where the results come from.
type Header struct {
	Command     string    `json:"command"`
	Date        time.Time `json:"date"`
	CPU         string    `json:"cpu"`
	Cores       int       `json:"cores"`
	Kernel      string    `json:"kernel"`
	Go          string    `json:"go"`
	Descriptors uint64    `json:"descriptors"`
	TLS         string    `json:"tls,omitempty"` // as the load client saw it
	Quick       bool      `json:"quick,omitempty"`
}

// Participant is a contestant that took part, or why it did not.
type Participant struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Skipped string `json:"skipped,omitempty"`
}

// Figure is one metric of one server, with a sample a round.
type Figure struct {
	Metric  string    `json:"metric"`
	Server  string    `json:"server"`
	Unit    unit      `json:"unit"`
	Samples []float64 `json:"samples"`
	Spread
	Ratio float64 `json:"ratio,omitempty"` // starttlsd's median by this one
}

// Verdict is a target and whether it was reached.
type Verdict struct {
	Metric  string  `json:"metric"`
	Against string  `json:"against,omitempty"` // starttlsd's median by this one's; "": starttlsd's alone
	Unit    unit    `json:"unit"`              // of Value and Limit
	Limit   float64 `json:"limit"`
	AtLeast bool    `json:"at_least,omitempty"` // else at most
	Value   float64 `json:"value"`
	Reached bool    `json:"reached"`
	Missing bool    `json:"missing,omitempty"` // there is no value
}

// unit is what the numbers of a metric are in.
type unit string

const (
	nanoseconds unit = "ns"
	bytesEach   unit = "B"
	perSecond   unit = "1/s"
	number      unit = "1"
	ratio       unit = "ratio"
)

// metric is what is measured.
type metric struct {
	id    string
	title string
	unit  unit
	bench string // name of the benchmark, and of its unit, for benchstat
	as    string
}

var metrics = []metric{
	{"upgrade-cpu", "CPU of the server for one upgrade", nanoseconds, "Upgrade", "server-ns/op"},
	{"upgrade-rate", "upgrades a second", perSecond, "Upgrade", "upgrades/s"},
	{"upgrade-p99", "upgrade, p99", nanoseconds, "Upgrade", "p99-ns"},
	{"idle-plain", "idle connection, plaintext", bytesEach, "Idle/state=plain", "PSS-B/conn"},
	{"idle-upgraded", "idle connection, upgraded", bytesEach, "Idle/state=upgraded", "PSS-B/conn"},
	{"idle-record", "idle connection, after 16 KiB each way", bytesEach, "Idle/state=record", "PSS-B/conn"},
	{"storm-p99", "session in a storm of upgrades, p99", nanoseconds, "Storm", "p99-ns"},
	{"storm-max", "session in a storm of upgrades, longest", nanoseconds, "Storm", "max-ns"},
	{"storm-rate", "upgrades a second in the storm", perSecond, "Storm", "upgrades/s"},
	{"chat-rate", "round trips a second, upgraded sessions", perSecond, "Chat", "roundtrips/s"},
	{"mail-rate", "messages a second into a Maildir", perSecond, "Mail", "messages/s"},
	{"capacity-held", "upgraded connections held to the end", number, "Capacity", "held"},
	{"capacity-lost", "connections lost or refused meanwhile", number, "Capacity", "lost"},
	{"capacity-served", "new upgrades served meanwhile", number, "Capacity", "served"},
}

func metricOf(id string) metric {
	for _, m := range metrics {
		if m.id == id {
			return m
		}
	}
	panic("peers: there is no metric " + id)
}

// targets are what starttlsd has to reach; at most, unless it says at least.
var targets = []struct {
	metric  string
	against string
	limit   float64
	atLeast bool
}{
	{"upgrade-cpu", "goroutine", 0.85, false},
	{"upgrade-cpu", floor, 1.35, false},
	{"upgrade-cpu", "nginx", 0.65, false},
	{"idle-plain", "", 1 << 10, false},
	{"idle-plain", "goroutine", 0.15, false},
	{"idle-upgraded", "", 9 << 10, false},
	{"idle-upgraded", "goroutine", 0.27, false},
	{"idle-upgraded", "nginx", 0.5, false},
	{"idle-record", "", 30 << 10, false},
	{"storm-p99", "goroutine", 0.2, false},
	{"storm-max", "", 15e6, false},
	{"chat-rate", "goroutine", 1, true},
	{"mail-rate", "goroutine", 1, true},
	{"capacity-held", "", 18_000, true},
	{"capacity-lost", "", 0, false},
	{"capacity-served", "", 1, true},
}

func (r *Results) figure(metric, server string) *Figure {
	for _, f := range r.Figures {
		if f.Metric == metric && f.Server == server {
			return f
		}
	}
	return nil
}

// add takes a sample.
func (r *Results) add(id, server string, value float64) {
	f := r.figure(id, server)
	if f == nil {
		f = &Figure{Metric: id, Server: server, Unit: metricOf(id).unit}
		r.Figures = append(r.Figures, f)
	}
	f.Samples = append(f.Samples, value)
}

func (r *Results) note(text string) { r.Notes = append(r.Notes, text) }

// summarise works out all that follows from the samples.
func (r *Results) summarise() {
	for _, f := range r.Figures {
		f.Spread = spread(f.Samples)
	}
	for _, f := range r.Figures {
		if ours := r.figure(f.Metric, own); ours != nil && f.Server != own && f.Median != 0 {
			f.Ratio = ours.Median / f.Median
		}
	}
	r.Verdicts = nil
	if r.Header.Quick {
		return // it is too short to judge by
	}
	for _, t := range targets {
		v := Verdict{Metric: t.metric, Against: t.against, Limit: t.limit, AtLeast: t.atLeast}
		v.Value, v.Unit = r.value(t.metric, t.against)
		if v.Missing = math.IsNaN(v.Value); v.Missing {
			v.Value = 0 // JSON has no NaN
		} else if t.atLeast {
			v.Reached = v.Value >= t.limit
		} else {
			v.Reached = v.Value <= t.limit
		}
		r.Verdicts = append(r.Verdicts, v)
	}
}

// value is starttlsd's median, or what it is by another's.
func (r *Results) value(metric, against string) (float64, unit) {
	ours, unit := r.figure(metric, own), metricOf(metric).unit
	if against != "" {
		unit = ratio
	}
	other := r.figure(metric, against)
	switch {
	case ours == nil, against != "" && (other == nil || other.Median == 0):
		return math.NaN(), unit
	case against == "":
		return ours.Median, unit
	default:
		return ours.Median / other.Median, unit
	}
}

func (r *Results) save(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

func loadResults(file string) (*Results, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	return r, json.Unmarshal(text, r)
}
