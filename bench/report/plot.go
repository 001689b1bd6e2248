package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"math"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"starttlsd/bench/load"
)

const (
	width  vg.Length = 480 // points
	height vg.Length = 260
)

// palette is legible on white and on black.
var palette = []color.Color{
	color.RGBA{0x2f, 0x80, 0xed, 0xff}, color.RGBA{0xf2, 0x75, 0x1a, 0xff}, color.RGBA{0x21, 0xa1, 0x6b, 0xff},
}

var failed = color.RGBA{0xe5, 0x39, 0x35, 0xff}

// series is a line of a plot.
type series struct {
	name   string // "": no legend
	color  color.Color
	points plotter.XYs
}

// newPlot has no title: the page says it.
func newPlot(x, y string, lines ...series) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Label.Text, p.Y.Label.Text = x, y
	for _, style := range []*font.Font{&p.X.Label.TextStyle.Font, &p.Y.Label.TextStyle.Font,
		&p.X.Tick.Label.Font, &p.Y.Tick.Label.Font, &p.Legend.TextStyle.Font} {
		style.Variant, style.Size = "Sans", 10
	}
	p.X.Label.Padding, p.Y.Label.Padding = 4, 4
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{0x99}, color.Gray{0x99}
	grid.Vertical.Width, grid.Horizontal.Width = 0.25, 0.25
	p.Add(grid)
	p.Legend.Top, p.Legend.Left = true, true
	p.Legend.Padding = 2
	for _, s := range lines {
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = s.color, 1.5
		p.Add(line)
		if s.name != "" {
			p.Legend.Add(s.name, line)
		}
	}
	return p, nil
}

// timePlot is from 0 up, over all the time that the run took.
func timePlot(took time.Duration, label string, lines []series) (*plot.Plot, error) {
	p, err := newPlot("seconds", label, lines...)
	if err != nil {
		return nil, err
	}
	p.X.Min, p.X.Max, p.Y.Min = 0, max(p.X.Max, took.Seconds()), 0
	p.Y.Max = max(p.Y.Max*1.1, 1e-3)
	return p, nil
}

// valueOf is what is plotted of a sample that took so long, if it has that.
type valueOf func(s load.Sample, took time.Duration) (v float64, ok bool)

func overTime(samples []load.Sample, value valueOf) plotter.XYs {
	var points plotter.XYs
	last := time.Duration(0)
	for _, s := range samples {
		took := s.At - last
		last = s.At
		if took <= 0 || took < time.Second/2 && len(points) > 0 { // the last may be too short for a rate
			continue
		}
		if v, ok := value(s, took); ok {
			points = append(points, plotter.XY{X: s.At.Seconds(), Y: v})
		}
	}
	return points
}

// byPercentile plots latency against the nines of its percentile.
func byPercentile(phases []load.Phase) (*plot.Plot, error) {
	var lines []series
	low, high, most := math.Inf(1), 0.0, 10.0
	for i, phase := range phases {
		s := series{name: phase.Name, color: palette[i%len(palette)]}
		for _, point := range phase.Latency.Curve() {
			// 1/(1-q): 90 % is at 10, 99 % at 100, the maximum where one in all would be.
			x := min(100/(100-point.Percentile), float64(phase.Latency.Count()))
			y := max(float64(point.Latency)/float64(time.Millisecond), 1e-3)
			s.points = append(s.points, plotter.XY{X: x, Y: y})
			low, high, most = min(low, y), max(high, y), max(most, x)
		}
		lines = append(lines, s)
	}
	p, err := newPlot("percentile", "latency", lines...)
	if err != nil {
		return nil, err
	}
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	p.X.Min, p.X.Max = 1, most
	p.X.Tick.Marker = plot.TickerFunc(nines)
	p.Y.Min, p.Y.Max = round125(low, false), round125(high*1.001, true)
	p.Y.Tick.Marker = plot.TickerFunc(latencyTicks)
	return p, nil
}

func nines(_, most float64) []plot.Tick {
	ticks := []plot.Tick{{Value: 1, Label: "0"}, {Value: 2, Label: "50"}}
	for x, label := 10.0, "90"; x <= most; x *= 10 {
		ticks = append(ticks, plot.Tick{Value: x, Label: label})
		switch label {
		case "90":
			label = "99"
		case "99":
			label = "99.9"
		default:
			label += "9"
		}
	}
	return ticks
}

// round125 is the next of 1, 2 and 5 times a power of ten.
func round125(v float64, up bool) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	steps := []float64{1, 2, 5, 10}
	if up {
		for _, s := range steps {
			if s*power >= v {
				return s * power
			}
		}
	}
	below := power
	for _, s := range steps {
		if s*power <= v {
			below = s * power
		}
	}
	return below
}

// latencyTicks are at 1, 2 and 5 ms and so on; over many decades only those at 1
// have labels.
func latencyTicks(low, high float64) []plot.Tick {
	var ticks []plot.Tick
	sparse := high/low > 1000
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, step := range []float64{1, 2, 5} {
			v := step * power
			if v < low*0.999 || v > high*1.001 {
				continue
			}
			t := plot.Tick{Value: v}
			if step == 1 || !sparse {
				t.Label = duration(time.Duration(math.Round(v * float64(time.Millisecond))))
			}
			ticks = append(ticks, t)
		}
	}
	return ticks
}

// inline is p as a part of a page, in the page's colours where it has none of its own.
func inline(p *plot.Plot) (template.HTML, error) {
	c := vgsvg.New(width, height)
	p.Draw(draw.New(c))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", fmt.Errorf("plot: %w", err)
	}
	_, rest, _ := strings.Cut(b.String(), ">\n<svg") // an XML header and a comment
	_, rest, _ = strings.Cut(rest, ">")              // size and name spaces, which HTML knows
	rest = strings.ReplaceAll(rest, "stroke:#000000", "stroke:currentColor")
	return template.HTML(fmt.Sprintf("<svg viewBox=\"0 0 %g %g\">%s", width.Points(), height.Points(), rest)), nil
}
