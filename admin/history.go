package admin

import (
	"fmt"
	"strings"
	"time"
)

// historySeconds is how far the charts go back.
const historySeconds = 10 * 60

// Point is a second of history.
type Point struct {
	Open     int64   `json:"open"`
	Upgrades float64 `json:"upgrades"` // a second, and so are the others
	Accepted float64 `json:"accepted"`
	Failed   float64 `json:"failed"`
	Refused  float64 `json:"refused"`
	Injected float64 `json:"injected"`
}

// history is the latest points, the oldest first. Its owner is page, with a lock.
type history struct {
	points []Point
	last   Status // that the next rates are reckoned from
}

// add takes a status and returns the point that it makes with the one before.
func (h *history) add(s *Status) Point {
	p := Point{Open: s.Open}
	if seconds := s.Time.Sub(h.last.Time).Seconds(); !h.last.Time.IsZero() && seconds > 0 {
		rate := func(now, before uint64) float64 { return float64(now-min(before, now)) / seconds }
		p.Upgrades, p.Accepted = rate(s.Upgrades, h.last.Upgrades), rate(s.Accepted, h.last.Accepted)
		p.Failed, p.Refused = rate(s.Failed, h.last.Failed), rate(s.Refused, h.last.Refused)
		p.Injected = rate(s.Injected, h.last.Injected)
	}
	h.last = *s
	if len(h.points) == historySeconds {
		h.points = append(h.points[:0], h.points[1:]...)
	}
	h.points = append(h.points, p)
	return p
}

// Charts are drawn in a box of this size, which the page stretches.
const (
	chartWidth  = historySeconds
	chartHeight = 100
)

// chart is a line of the history, ready to be drawn.
type chart struct {
	Points string // of an SVG polyline, the latest at the right
	Most   float64
	Now    float64
}

func (h *history) chart(of func(*Point) float64) chart {
	c := chart{Most: 1}
	for i := range h.points {
		c.Most = max(c.Most, of(&h.points[i]))
	}
	var b strings.Builder
	for i := range h.points {
		c.Now = of(&h.points[i])
		fmt.Fprintf(&b, "%d,%.1f ", chartWidth-len(h.points)+i+1, chartHeight*(1-c.Now/c.Most))
	}
	c.Points = strings.TrimSpace(b.String())
	return c
}

// number writes n with commas between thousands, and one digit behind the point
// where n is small and not whole.
func number(n float64) string {
	text := fmt.Sprintf("%.0f", n)
	if n < 10 && n != float64(int64(n)) {
		return fmt.Sprintf("%.1f", n)
	}
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// span writes a duration in its two largest units.
func span(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm %ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh %dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd %dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	}
}
