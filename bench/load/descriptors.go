package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const ownDescriptors = 64 // for all but the connections

// checkDescriptors says what to do when this process may not have n connections.
func checkDescriptors(n int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // then it will be seen
	}
	if uint64(limit.Cur) >= uint64(n)+ownDescriptors {
		return nil
	}
	return fmt.Errorf("%d connections need %d descriptors and this process may have %d; "+
		"use fewer, or raise the limit (ulimit -n %d)", n, n+ownDescriptors, limit.Cur, n+ownDescriptors)
}
