package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written plain or with a unit: 25MiB, 25MB, 26214400.
type Size int64

const (
	kiB Size = 1 << 10
	miB Size = 1 << 20
	giB Size = 1 << 30
)

// units are ordered so that the first that divides a Size is its canonical one,
// and so that a unit is tried before a suffix of it.
var units = []struct {
	name string
	size Size
}{
	{"GiB", giB}, {"MiB", miB}, {"KiB", kiB},
	{"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3},
}

func parseSize(s string) (Size, error) {
	number, unit := s, Size(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, unit = n, u.size
			break
		}
	}
	n, err := strconv.ParseUint(strings.TrimRight(number, " "), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size; write bytes, or a whole number with KiB, MiB, GiB, kB, MB or GB", s)
	}
	if n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return Size(n) * unit, nil
}

// String writes s with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range units[:3] {
		if s != 0 && s%u.size == 0 {
			return strconv.FormatInt(int64(s/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalYAML writes s as String does; a plain number stays a number.
func (s Size) MarshalYAML() ([]byte, error) { return []byte(s.String()), nil }

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration; write for instance 10s or 1m30s", s)
	}
	return d, nil
}

// formatDuration is d.String() without the zero units at its end: 5m, not 5m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// canonical writes a limit as a configuration file would.
func canonical(v any) string {
	if d, ok := v.(time.Duration); ok {
		return formatDuration(d)
	}
	return fmt.Sprint(v)
}
