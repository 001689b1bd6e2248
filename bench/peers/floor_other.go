//go:build !linux

package peers

import (
	"crypto/tls"
	"errors"
	"time"
)

// Floor needs the clock of one thread.
func Floor(int, *tls.Config, *tls.Config) (time.Duration, error) {
	return 0, errors.ErrUnsupported
}
