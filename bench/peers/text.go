package peers

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"
)

// Text is r for a terminal, as it is printed and saved.
func Text(r *Results) string {
	var b strings.Builder
	h := r.Header
	fmt.Fprintf(&b, "# %s\n# %s, %d cores, %s, %s, %d descriptors, %s\n", h.Command, h.CPU, h.Cores, h.Kernel, h.Go,
		h.Descriptors, h.Date.Format(time.DateTime+" MST"))
	if h.TLS != "" {
		fmt.Fprintf(&b, "# %s\n", h.TLS)
	}
	for _, p := range r.Contestants {
		if p.Skipped != "" {
			fmt.Fprintf(&b, "# %s: skipped: %s\n", p.Name, p.Skipped)
		} else {
			fmt.Fprintf(&b, "# %s: %s\n", p.Name, p.Version)
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "# note: %s\n", n)
	}
	b.WriteString("\nMedians; in brackets, starttlsd's by this one.\n\n")
	columns(&b, r.figureRows())
	b.WriteString("\nQuartiles and extremes.\n\n")
	columns(&b, r.spreadRows())
	if rows := r.verdictRows(); len(rows) > 1 {
		b.WriteString("\nTargets.\n\n")
		columns(&b, rows)
	}
	return b.String()
}

func columns(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			line.WriteString(cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

func (r *Results) spreadRows() [][]string {
	rows := [][]string{{"", "server", "least", "quartile", "median", "quartile", "most", "rounds"}}
	for _, m := range metrics {
		for _, s := range r.servers() {
			f := r.figure(m.id, s)
			if f == nil {
				continue
			}
			row := []string{m.title, s}
			for _, v := range []float64{f.Min, f.Low, f.Median, f.High, f.Max} {
				row = append(row, format(v, m.unit))
			}
			rows = append(rows, append(row, fmt.Sprint(len(f.Samples))))
		}
	}
	return rows
}

// Benchstat is every sample as a line of a Go benchmark.
func Benchstat(r *Results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "goos: %s\npkg: starttlsd/bench/peers\ncpu: %s\n", runtime.GOOS, r.Header.CPU)
	for i := 0; i < len(metrics); {
		same := i // metrics of one benchmark stand together
		for same < len(metrics) && metrics[same].bench == metrics[i].bench {
			same++
		}
		for _, s := range r.servers() {
			r.benchLines(&b, metrics[i:same], s)
		}
		i = same
	}
	return b.String()
}

func (r *Results) benchLines(b *strings.Builder, group []metric, server string) {
	for round := 0; ; round++ {
		var values strings.Builder
		for _, m := range group {
			if f := r.figure(m.id, server); f != nil && round < len(f.Samples) {
				fmt.Fprintf(&values, " %.6g %s", f.Samples[round], m.as)
			}
		}
		if values.Len() == 0 {
			return
		}
		fmt.Fprintf(b, "BenchmarkPeer%s/server=%s 1%s\n", group[0].bench, server, &values)
	}
}
