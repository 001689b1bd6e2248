//go:build !linux

package engine

import "math"

// physicalMemory is not known here: set GOMEMLIMIT or max_connections.
func physicalMemory() int64 { return math.MaxInt64 }
