package load

import "time"

// CPU is the time that a process and all below it have computed, in steps of 10 ms.
func CPU(pid int) time.Duration {
	sum, _ := (&meter{pid: pid}).total()
	return sum
}

// PSS is the memory of a process and all below it in bytes, shared pages in
// proportion; 0 when it may not be read.
func PSS(pid int) int64 {
	sum, ok := (&meter{pid: pid}).pss()
	if !ok {
		return 0
	}
	return sum
}
