package enginetest

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Usage is what a process takes of the system, as Linux counts it.
type Usage struct {
	PSS         int // bytes of memory, shared pages in proportion
	Descriptors int
	Threads     int
}

func (u Usage) String() string {
	return fmt.Sprintf("%.1f MiB PSS, %d descriptors, %d threads", float64(u.PSS)/(1<<20), u.Descriptors, u.Threads)
}

// Usage is taken now. It needs Linux.
func (p *Process) Usage() Usage {
	p.tb.Helper()
	proc := fmt.Sprintf("/proc/%d/", p.PID())
	descriptors, err := os.ReadDir(proc + "fd")
	if err != nil {
		p.tb.Fatal(err)
	}
	return Usage{
		PSS:         1024 * p.number(proc+"smaps_rollup", `(?m)^Pss:\s+(\d+) kB$`),
		Descriptors: len(descriptors),
		Threads:     p.number(proc+"status", `(?m)^Threads:\s+(\d+)$`),
	}
}

func (p *Process) number(file, pattern string) int {
	p.tb.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		p.tb.Fatal(err)
	}
	m := regexp.MustCompile(pattern).FindSubmatch(text)
	if m == nil {
		p.tb.Fatalf("%s: no match for %s", file, pattern)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		p.tb.Fatal(err)
	}
	return n
}

// goroutine is the first line of one in a dump; 0 is the scheduler's.
var goroutine = regexp.MustCompile(`(?m)^goroutine [1-9]\d* .*\[`)

// Goroutines ends the process with SIGQUIT, on which Go writes the stacks of all
// its goroutines, and counts those that are not the runtime's own.
func (p *Process) Goroutines() int {
	p.tb.Helper()
	before := len(p.Log())
	p.Signal(syscall.SIGQUIT)
	p.Wait()
	n := 0
	for stack := range strings.SplitSeq(p.Log()[before:], "\n\n") {
		if goroutine.MatchString(stack) && !strings.Contains(stack, "created by runtime.") {
			n++
		}
	}
	if n == 0 {
		p.tb.Fatal("no goroutines in the dump")
	}
	return n
}

// Eventually waits until ok, for a minute at most.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatal("waited in vain: ", what)
		}
	}
}
