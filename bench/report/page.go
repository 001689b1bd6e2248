package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"time"

	"gonum.org/v1/plot"

	"starttlsd/bench/load"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// figure is a plot with its title.
type figure struct {
	Title string
	Plot  template.HTML
}

const pageName = "index.html"

// Prepare sees that Write can write, and makes dir if need be.
func Prepare(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, pageName), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// Write writes the result as one page that needs nothing else, DIR/index.html,
// and returns its name. dir is made if need be.
func Write(dir string, r *load.Result) (name string, err error) {
	text, err := Page(r)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name = filepath.Join(dir, pageName)
	return name, os.WriteFile(name, text, 0o644)
}

// Page is the result as one page that needs nothing else.
func Page(r *load.Result) ([]byte, error) {
	type cell struct{ Name, Value string }
	data := struct {
		Title     string
		Summary   []cell
		Latencies [][]string
		Figures   []figure
	}{
		Title:     fmt.Sprintf("%s, %s, %s", r.Target, r.Mode, r.Began.UTC().Format("2006-01-02 15:04 UTC")),
		Latencies: latencies(r),
	}
	for _, row := range summary(r) {
		data.Summary = append(data.Summary, cell{row.name, row.value})
	}
	for _, d := range drawings(r) {
		p, err := d.plot()
		if err != nil {
			return nil, err
		}
		svg, err := inline(p)
		if err != nil {
			return nil, err
		}
		data.Figures = append(data.Figures, figure{d.title, svg})
	}
	var b bytes.Buffer
	if err := page.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// drawing is a figure that is to be made.
type drawing struct {
	title string
	plot  func() (*plot.Plot, error)
}

// drawings are those for which the result has data.
func drawings(r *load.Result) []drawing { return append(percentiles(r), overTimes(r)...) }

func percentiles(r *load.Result) []drawing {
	phases, title := []load.Phase{{Latency: r.Latency}}, "Latency of the "+operations[r.Mode]+" by percentile"
	if r.Mode == load.Storm {
		phases, title = r.Phases, "Latency of commands on established sessions before, during and after the storm, by percentile"
	}
	var measured []load.Phase
	for _, p := range phases {
		if p.Latency != nil && p.Latency.Count() > 1 {
			measured = append(measured, p)
		}
	}
	if len(measured) == 0 {
		return nil
	}
	return []drawing{{title, func() (*plot.Plot, error) { return byPercentile(measured) }}}
}

func overTimes(r *load.Result) []drawing {
	var all []drawing
	add := func(title, label string, value valueOf, more ...series) {
		points := overTime(r.Samples, value)
		if len(points) < 2 {
			return
		}
		main := series{color: palette[0], points: points}
		if len(more) > 0 {
			main.name = label
		}
		all = append(all, drawing{title, func() (*plot.Plot, error) { return timePlot(r.Took, label, append(more, main)) }})
	}
	perSecond := func(n int64, took time.Duration) (float64, bool) { return float64(n) / took.Seconds(), true }
	var errors []series
	if r.Failed() > 0 {
		errors = []series{{"errors", failed, overTime(r.Samples, func(s load.Sample, took time.Duration) (float64, bool) {
			return perSecond(s.Errors, took)
		})}}
	}
	what := operations[r.Mode]
	add("Rate", what+" a second", func(s load.Sample, took time.Duration) (float64, bool) {
		return perSecond(s.Done, took)
	}, errors...)
	add("99th percentile of each second, "+what, "ms", func(s load.Sample, _ time.Duration) (float64, bool) {
		return float64(s.P99.Microseconds()) / 1000, s.Done > 0
	})
	add("Connections", "open", func(s load.Sample, _ time.Duration) (float64, bool) { return float64(s.Open), true })
	if r.Server != nil {
		add("CPU of the server", "cores", func(s load.Sample, took time.Duration) (float64, bool) {
			return s.CPU.Seconds() / took.Seconds(), true
		})
		add("Memory of the server", "PSS, MiB", func(s load.Sample, _ time.Duration) (float64, bool) {
			return float64(s.PSS) / (1 << 20), s.PSS > 0
		})
	}
	return all
}
