package load

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// meter measures a process and all below it.
//
// CPU time is user and system time in ticks of 10 ms, each process's own and that
// of the children it has waited for, so that nothing is lost when a process or a
// thread ends between two samples; only children that nobody waits for are. The
// kernel keeps it in nanoseconds, also of threads that are gone, and rounds down
// when it is read, which is much where there is a process for each session.
// /proc/PID/task/*/schedstat has the nanoseconds, and agrees, but forgets threads that
// have ended: the larger of both is taken. /proc/PID/schedstat is one thread's.
type meter struct {
	pid    int
	before time.Duration
	last   time.Duration
	next   time.Time // when the memory may be read again
	report Usage
}

const (
	tick    = 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
	maxTree = 10_000
	share   = 100 // of the time, reading the memory may take one in so many: the server waits for it
)

func newMeter(pid int) (*meter, error) {
	m := &meter{pid: pid}
	if _, ok := m.cpu(pid); !ok {
		return nil, fmt.Errorf("there is no process %d to be measured", pid)
	}
	return m, nil
}

// start is the beginning of what is measured.
func (m *meter) start() {
	m.before, _ = m.total()
	m.last = m.before
	m.report.PSSBefore, _ = m.pss()
}

// sample is the CPU time since the last call, and the memory or 0 when it was
// read not long ago for what that took.
func (m *meter) sample() (cpu time.Duration, pss int64) {
	if now, n := m.total(); n > 0 {
		cpu, m.last = now-m.last, now
	}
	if began := time.Now(); began.After(m.next) {
		pss, _ = m.pss()
		m.next = began.Add(share * time.Since(began))
	}
	return cpu, pss
}

// stop is the end of what is measured. Of a server that is gone, the CPU time is
// that of the last sample.
func (m *meter) stop() {
	if now, n := m.total(); n > 0 {
		m.last, m.report.Processes = now, n
	}
	m.report.CPU = m.last - m.before
	after, ok := m.pss()
	if !ok || m.report.PSSBefore == 0 {
		m.report.PSSBefore, after = 0, 0 // half of it would be taken for the whole
	}
	m.report.PSSAfter = after
}

// total is the CPU time of all processes, and their number.
func (m *meter) total() (sum time.Duration, n int) {
	for _, pid := range m.tree() {
		if t, ok := m.cpu(pid); ok {
			sum += t
			n++
		}
	}
	return sum, n
}

// cpu is utime and stime of /proc/PID/stat, or what its threads say, and cutime and
// cstime; see proc_pid_stat(5).
func (m *meter) cpu(pid int) (sum time.Duration, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, false
	}
	// The name in parentheses may contain anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 15 {
		return 0, false
	}
	var times [4]time.Duration
	for i, f := range fields[11:15] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, false
		}
		times[i] = time.Duration(n) * tick
	}
	return max(times[0]+times[1], threadTime(pid)) + times[2] + times[3], true
}

// threadTime is the CPU time of the threads that a process has now; 0 where the kernel
// does not tell.
func threadTime(pid int) (sum time.Duration) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range names {
		text, _ := os.ReadFile(name)
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			sum += time.Duration(n)
		}
	}
	return sum
}

// pss is the memory in bytes, shared pages in proportion; 0 and not ok when that of
// a process may not be read.
func (m *meter) pss() (sum int64, ok bool) {
	for _, pid := range m.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if errors.Is(err, fs.ErrPermission) {
			return 0, false
		}
		_, rest, _ := strings.Cut(string(text), "\nPss:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			n, _ := strconv.ParseInt(fields[0], 10, 64)
			sum += n * 1024
		}
	}
	return sum, true
}

// tree is the process and all below it.
func (m *meter) tree() []int {
	pids := []int{m.pid}
	for i := 0; i < len(pids) && len(pids) < maxTree; i++ {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, name := range threads {
			text, _ := os.ReadFile(name)
			for f := range strings.FieldsSeq(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}
	return pids
}

func (m *meter) usage() *Usage { return &m.report }
