package peers

import (
	"image/color"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// chart is a plot of one or more metrics by server.
type chart struct {
	file, title, axis string
	scale             float64 // of the axis' unit
	without           string  // a server that would make the others too small to see
	bars              []bars
}

type bars struct{ metric, name string }

var charts = []chart{
	{"upgrade", "CPU time of the server for one upgrade", "µs, median and quartiles", 1e3, "",
		[]bars{{"upgrade-cpu", ""}}},
	{"memory", "Memory of an idle connection (PSS), without Postfix, which has a process for each", "KB, median and quartiles", 1 << 10, "postfix",
		[]bars{{"idle-plain", "plaintext"}, {"idle-upgraded", "upgraded"}, {"idle-record", "after 16 KiB each way"}}},
	{"storm", "Round trip of a session in a storm of upgrades", "ms, median and quartiles", 1e6, "",
		[]bars{{"storm-p99", "p99"}, {"storm-max", "longest"}}},
}

// hues are from Okabe and Ito, told apart also without seeing red and green.
var hues = []color.Color{
	color.RGBA{R: 0x00, G: 0x72, B: 0xb2, A: 0xff},
	color.RGBA{R: 0xe6, G: 0x9f, B: 0x00, A: 0xff},
	color.RGBA{R: 0x00, G: 0x9e, B: 0x73, A: 0xff},
}

// plot writes the charts there are figures for, in the format of that ending.
func (r *Results) plot(dir, ending string) error {
	for _, c := range charts {
		if err := r.draw(&c, filepath.Join(dir, c.file+"."+ending)); err != nil {
			return err
		}
	}
	return nil
}

// draw plots c with a group of bars for each server, unless there is nothing to plot.
func (r *Results) draw(c *chart, file string) error {
	p := plot.New()
	p.Title.Text = c.title
	p.Title.Padding = vg.Points(8)
	p.Y.Label.Text = c.axis
	p.Y.Min = 0
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	p.Add(grid)
	p.Legend.Top, p.Legend.Padding = true, vg.Points(3)
	p.Legend.XOffs, p.Legend.YOffs = vg.Points(-6), vg.Points(-4)

	var present []bars
	for _, b := range c.bars {
		if r.measured(b.metric) {
			present = append(present, b)
		}
	}
	servers := slices.DeleteFunc(r.serversOf(present), func(s string) bool { return s == c.without })
	if len(servers) == 0 {
		return nil
	}
	const group = 0.8 // of the way to the next
	each := group / float64(len(present))
	for i, b := range present {
		shift := each * (float64(i) - float64(len(present)-1)/2)
		if err := r.drawBars(p, b, servers, c.scale, hues[i], vg.Points(70*each), shift); err != nil {
			return err
		}
	}
	p.Y.Max *= 1.1 + 0.08*float64(len(present)) // room for the legend
	var names []string
	for _, s := range servers {
		names = append(names, strings.Replace(titleOf(s), "a goroutine a connection", "goroutine", 1))
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max = -0.5, float64(len(servers))-0.5
	return p.Save(vg.Points(90*float64(max(len(servers), 4))+60), vg.Points(320), file)
}

// serversOf are those with a figure of any of the metrics.
func (r *Results) serversOf(group []bars) []string {
	var names []string
	for _, s := range r.servers() {
		for _, b := range group {
			if r.figure(b.metric, s) != nil {
				names = append(names, s)
				break
			}
		}
	}
	return names
}

// drawBars draws one bar of each group, shifted from its middle.
func (r *Results) drawBars(p *plot.Plot, b bars, servers []string, scale float64, hue color.Color, width vg.Length, shift float64) error {
	heights := make(plotter.Values, len(servers))
	var spreads barSpreads
	var labels plotter.XYLabels
	for i, s := range servers {
		f := r.figure(b.metric, s)
		if f == nil {
			continue
		}
		heights[i] = f.Median / scale
		at := plotter.XY{X: float64(i) + shift, Y: f.Median / scale}
		spreads.XYs = append(spreads.XYs, at)
		spreads.YErrors = append(spreads.YErrors, struct{ Low, High float64 }{(f.Median - f.Low) / scale, (f.High - f.Median) / scale})
		labels.XYs = append(labels.XYs, plotter.XY{X: at.X, Y: f.High / scale})
		labels.Labels = append(labels.Labels, digits(f.Median/scale))
	}
	chart, err := plotter.NewBarChart(heights, width)
	if err != nil {
		return err
	}
	chart.XMin, chart.Color, chart.LineStyle.Width = shift, hue, 0
	whiskers, err := plotter.NewYErrorBars(&spreads)
	if err != nil {
		return err
	}
	texts, err := plotter.NewLabels(labels)
	if err != nil {
		return err
	}
	texts.Offset = vg.Point{Y: vg.Points(3)}
	for i := range texts.TextStyle {
		texts.TextStyle[i].XAlign = text.XCenter
	}
	p.Add(chart, whiskers, texts)
	if b.name != "" {
		p.Legend.Add(b.name, chart)
	}
	return nil
}

// barSpreads are a plotter.YErrorer.
type barSpreads struct {
	plotter.XYs
	plotter.YErrors
}
