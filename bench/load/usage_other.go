//go:build !linux

package load

import (
	"errors"
	"time"
)

// meter is not there: it reads /proc as Linux has it.
type meter struct{}

func newMeter(int) (*meter, error) {
	return nil, errors.New("CPU time and memory of a process can be measured on Linux only")
}

func (*meter) start()                                 {}
func (*meter) sample() (cpu time.Duration, pss int64) { return 0, 0 }
func (*meter) stop()                                  {}
func (*meter) usage() *Usage                          { return nil }
