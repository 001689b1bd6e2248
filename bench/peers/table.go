package peers

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

// TableMain prints the Markdown tables of the results that were saved. It returns
// flag.ErrHelp when it was asked for its flags.
func TableMain(_ context.Context, args []string, stdout, _ io.Writer) error {
	flags := flag.NewFlagSet("table", flag.ContinueOnError)
	flags.SetOutput(stdout)
	file := flags.String("results", "bench/results/results.json", "`FILE` that peers has written")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := loadResults(*file)
	if err != nil {
		return err
	}
	_, err = io.WriteString(stdout, Table(r))
	return err
}

// Table is r in Markdown: the figures, and the targets with what was reached.
func Table(r *Results) string {
	var b strings.Builder
	markdown(&b, r.figureRows())
	if rows := r.verdictRows(); len(rows) > 1 {
		b.WriteString("\n")
		markdown(&b, rows)
	}
	return b.String()
}

func markdown(b *strings.Builder, rows [][]string) {
	for i, row := range rows {
		fmt.Fprintf(b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
}

// figureRows have a metric each, and a column for each server: its median and, in
// brackets, what starttlsd's is by it. The first row is the heading.
func (r *Results) figureRows() [][]string {
	servers := r.servers()
	head := []string{""}
	for _, s := range servers {
		head = append(head, titleOf(s))
	}
	rows := [][]string{head}
	for _, m := range metrics {
		row := []string{m.title}
		for _, s := range servers {
			f := r.figure(m.id, s)
			switch {
			case f == nil:
				row = append(row, "–")
			case f.Ratio == 0:
				row = append(row, format(f.Median, m.unit))
			default:
				row = append(row, fmt.Sprintf("%s (%s)", format(f.Median, m.unit), format(f.Ratio, ratio)))
			}
		}
		if r.measured(m.id) {
			rows = append(rows, row)
		}
	}
	return rows
}

func (r *Results) measured(id string) bool {
	return slices.ContainsFunc(r.Figures, func(f *Figure) bool { return f.Metric == id })
}

// servers are those that there is a figure of, in the usual order.
func (r *Results) servers() []string {
	var names []string
	for _, c := range append(slices.Clone(contestants), contestant{name: floor}) {
		if slices.ContainsFunc(r.Figures, func(f *Figure) bool { return f.Server == c.name }) {
			names = append(names, c.name)
		}
	}
	return names
}

func (r *Results) verdictRows() [][]string {
	rows := [][]string{{"starttlsd", "target", "measured", "reached"}}
	for _, v := range r.Verdicts {
		bound := "at most "
		if v.AtLeast {
			bound = "at least "
		}
		target := bound + strings.Replace(format(v.Limit, v.Unit), ".00 ", " ", 1)
		if v.Against != "" {
			target += " of " + titleOf(v.Against)
		}
		value, reached := format(v.Value, v.Unit), "yes"
		switch {
		case v.Missing:
			value, reached = "–", "–"
		case !v.Reached:
			reached = "**no**"
		}
		rows = append(rows, []string{metricOf(v.Metric).title, target, value, reached})
	}
	return rows
}

// format is a number with its unit.
func format(v float64, u unit) string {
	switch u {
	case nanoseconds:
		return formatDuration(time.Duration(v))
	case bytesEach:
		if v < 1000*1024 {
			return digits(v/1024) + " KB"
		}
		return digits(v/(1<<20)) + " MB"
	case ratio:
		return fmt.Sprintf("× %.2f", v)
	default:
		return thousands(v)
	}
}

func formatDuration(d time.Duration) string {
	switch us := float64(d) / 1e3; {
	case us < 999.5:
		return digits(us) + " µs"
	case us < 999.5e3:
		return digits(us/1e3) + " ms"
	default:
		return digits(us/1e6) + " s"
	}
}

// digits is v with three of them, or as many as it has before the point.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case a < 9.995:
		return fmt.Sprintf("%.2f", v)
	case a < 99.95:
		return fmt.Sprintf("%.1f", v)
	default:
		return thousands(v)
	}
}

// thousands is a whole number with commas.
func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
