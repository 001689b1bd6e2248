package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"starttlsd/bench/load"
)

// Text writes the result for a terminal.
func Text(w io.Writer, r *load.Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range summary(r) {
		fmt.Fprintf(tw, "%s\t%s\n", row.name, clean(row.value))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	table := latencies(r)
	if len(table) == 1 {
		return nil
	}
	fmt.Fprintln(w)
	tw = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range table {
		fmt.Fprintln(tw, strings.Join(line, "\t"))
	}
	return tw.Flush()
}

// clean keeps a server from writing to the terminal what is no text.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
