// Package report shows what a run of package load has measured, as text and as a page.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"starttlsd/bench/load"
)

// row is a line of the summary.
type row struct{ name, value string }

// operations is what the operations of a mode are called.
var operations = map[load.Mode]string{
	load.Upgrade: "upgrades",
	load.Hold:    "connections",
	load.Chat:    "commands",
	load.Mail:    "messages",
	load.Storm:   "upgrades",

	load.Transfer: "transfers",
}

func summary(r *load.Result) []row {
	what := cmp.Or(operations[r.Mode], "operations")
	rows := []row{
		{"target", r.Target},
		{"mode", mode(r)},
	}
	done := fmt.Sprintf("%d %s in %s", r.Done, what, duration(r.Took))
	if r.Mode != load.Hold {
		done += fmt.Sprintf(", %.1f a second", r.Throughput())
	}
	if r.Cut {
		done += " (ended before it was done)"
	}
	rows = append(rows, row{"done", done})
	if r.Missed > 0 {
		rows = append(rows, row{"missed", fmt.Sprintf("%d were due and never begun: too many were in flight", r.Missed)})
	}
	if r.Bytes > 0 {
		rows = append(rows, row{"data", fmt.Sprintf("%s, %s a second", octets(r.Bytes), octets(int64(r.ByteRate())))})
	}
	rows = append(rows, failures(r)...)
	if r.TLS != "" {
		rows = append(rows, row{"TLS", fmt.Sprintf("%s; %d resumed", r.TLS, r.Resumed)})
	}
	return append(rows, server(r, what)...)
}

func mode(r *load.Result) string {
	switch {
	case r.Rate > 0:
		return fmt.Sprintf("%s, open loop, %g a second, %d at a time at most", r.Mode, r.Rate, r.Connections)
	case r.Mode == load.Hold:
		return fmt.Sprintf("%s, %d connections", r.Mode, r.Connections)
	default:
		return fmt.Sprintf("%s, closed loop, %d at a time", r.Mode, r.Connections)
	}
}

func failures(r *load.Result) []row {
	if r.Failed() == 0 {
		return []row{{"errors", "none"}}
	}
	var rows []row
	for _, kind := range slices.Sorted(maps.Keys(r.Errors)) {
		rows = append(rows, row{"errors", fmt.Sprintf("%d × %s, first: %s", r.Errors[kind], kind, r.Examples[kind])})
	}
	return rows
}

func server(r *load.Result, what string) []row {
	u := r.Server
	if u == nil {
		return nil
	}
	cpu := duration(u.CPU)
	if r.Took > 0 {
		cpu += fmt.Sprintf(", %.0f%% of a core", 100*u.CPU.Seconds()/r.Took.Seconds())
	}
	if each := r.PerOperation(); each > 0 {
		cpu += fmt.Sprintf("; %s for each of the %s", duration(each), what)
	}
	if each := r.PerGiB(); each > 0 {
		cpu += fmt.Sprintf("; %s for each GiB", duration(each))
	}
	if u.PSSBefore == 0 {
		return []row{{"server CPU", cpu}, {"server memory", "not readable; run as the server's user or root"}}
	}
	memory := fmt.Sprintf("%s before, %s after (PSS of %s)",
		octets(u.PSSBefore), octets(u.PSSAfter), plural(u.Processes, "process", "processes"))
	if n := r.PerConnection(); n != 0 {
		memory += fmt.Sprintf("; %s a connection", octets(n))
	}
	return []row{{"server CPU", cpu}, {"server memory", memory}}
}

// latencies is the table of latencies with its head.
func latencies(r *load.Result) [][]string {
	table := [][]string{{"latency", "count", "p50", "p90", "p99", "p99.9", "max"}}
	suffix := ""
	if r.Failures != nil {
		suffix = ", succeeded"
	}
	add := func(name string, l *load.Latency) {
		if l == nil || l.Count() == 0 {
			return
		}
		line := []string{name + suffix, fmt.Sprint(l.Count())}
		for _, p := range []float64{50, 90, 99, 99.9, 100} {
			line = append(line, duration(l.Percentile(p)))
		}
		table = append(table, line)
	}
	switch {
	case r.Mode == load.Storm:
		for _, p := range r.Phases {
			add("commands "+p.Name, p.Latency)
		}
		add("upgrades of the flood", r.Latency)
	case r.Mode == load.Hold:
		for _, p := range r.Phases {
			if p.Name == "holding" {
				add("upgrades meanwhile", p.Latency)
			} else {
				add(p.Name, p.Latency)
			}
		}
	default:
		add(strings.TrimSuffix(operations[r.Mode], "s"), r.Latency)
	}
	suffix = ""
	add("failed", r.Failures)
	return table
}

// duration is d with three significant digits.
func duration(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < 999_500*time.Nanosecond: // what is more has four digits when it is rounded
		return fmt.Sprintf("%.3g µs", float64(d)/float64(time.Microsecond))
	case d < 999_500*time.Microsecond:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	case d < 999_500*time.Millisecond:
		return fmt.Sprintf("%.3g s", d.Seconds())
	default:
		return d.Round(time.Second).String()
	}
}

func octets(n int64) string {
	switch v := float64(n); {
	case n < 0:
		return "−" + octets(-n)
	case n < 10<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", v/(1<<10))
	default:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
