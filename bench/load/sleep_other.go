//go:build !linux

package load

import "time"

func sleepFine(d time.Duration) { time.Sleep(d) }
