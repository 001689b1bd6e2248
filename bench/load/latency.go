package load

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency is a distribution of durations with three significant digits, between
// 1 µs and an hour. In JSON it is its summary, its curve by percentile, and the
// whole of it as HdrHistogram V2, from which it is read back. One goroutine at a
// time uses it.
type Latency struct{ h *hdrhistogram.Histogram }

const maxLatency = time.Hour

// NewLatency returns an empty distribution.
func NewLatency() *Latency {
	return &Latency{hdrhistogram.New(int64(time.Microsecond), int64(maxLatency), 3)}
}

// Record adds a duration; one that is out of range counts as the nearest that is not.
func (l *Latency) Record(d time.Duration) {
	_ = l.h.RecordValue(int64(min(max(d, 0), maxLatency)))
}

// Merge adds all of other.
func (l *Latency) Merge(other *Latency) { l.h.Merge(other.h) }

// Count is the number of durations.
func (l *Latency) Count() int64 { return l.h.TotalCount() }

// Mean is 0 when there is nothing to count.
func (l *Latency) Mean() time.Duration { return time.Duration(l.h.Mean()) }

// Max is the longest duration.
func (l *Latency) Max() time.Duration { return time.Duration(l.h.Max()) }

// Percentile is the duration that p percent do not exceed.
func (l *Latency) Percentile(p float64) time.Duration {
	return time.Duration(l.h.ValueAtPercentile(p))
}

// Point is one of a curve.
type Point struct {
	Percentile float64       `json:"percentile"`
	Latency    time.Duration `json:"ns"`
}

// Curve is the latency by percentile, denser towards 100, which is the last.
func (l *Latency) Curve() []Point {
	var points []Point
	if l.Count() == 0 {
		return nil
	}
	for _, b := range l.h.CumulativeDistributionWithTicks(5) {
		points = append(points, Point{b.Quantile, time.Duration(b.ValueAt)})
	}
	return points
}

type latencyJSON struct {
	Count int64         `json:"count"`
	Mean  time.Duration `json:"mean_ns"`
	P50   time.Duration `json:"p50_ns"`
	P90   time.Duration `json:"p90_ns"`
	P99   time.Duration `json:"p99_ns"`
	P999  time.Duration `json:"p999_ns"`
	Max   time.Duration `json:"max_ns"`
	Curve []Point       `json:"curve"`
	HDR   []byte        `json:"hdr"`
}

// MarshalJSON implements json.Marshaler.
func (l *Latency) MarshalJSON() ([]byte, error) {
	hdr, err := l.h.EncodeV2()
	if err != nil {
		return nil, err
	}
	return json.Marshal(latencyJSON{
		Count: l.Count(), Mean: l.Mean(), Max: l.Max(),
		P50: l.Percentile(50), P90: l.Percentile(90), P99: l.Percentile(99), P999: l.Percentile(99.9),
		Curve: l.Curve(), HDR: hdr,
	})
}

// UnmarshalJSON implements json.Unmarshaler.
func (l *Latency) UnmarshalJSON(text []byte) error {
	var v latencyJSON
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	h, err := hdrhistogram.Decode(v.HDR)
	if err != nil {
		return fmt.Errorf("latency: %w", err)
	}
	l.h = h
	return nil
}
