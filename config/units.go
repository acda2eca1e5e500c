package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written as "90s", "2m", "1h30m", "14d", "2w" or
// "1y" (365 days). It is never negative.
type Duration struct{ time.Duration }

const day = 24 * time.Hour

// Minutes is a Duration of n minutes.
func Minutes(n int) Duration { return Duration{time.Duration(n) * time.Minute} }

// Days is a Duration of n days of 24 hours.
func Days(n int) Duration { return Duration{time.Duration(n) * day} }

var durationUnits = map[string]time.Duration{
	"ns": 1, "us": time.Microsecond, "µs": time.Microsecond, "ms": time.Millisecond,
	"s": time.Second, "m": time.Minute, "h": time.Hour, "d": day, "w": 7 * day, "y": 365 * day,
}

// ParseDuration reads a Duration. "0" needs no unit, everything else does.
func ParseDuration(s string) (Duration, error) {
	rest := strings.TrimSpace(s)
	if rest == "0" {
		return Duration{}, nil
	}
	bad := fmt.Errorf("%s is not a duration: write for example \"30s\", \"10m\", \"12h\" or \"14d\"", quote(s))
	if rest == "" {
		return Duration{}, bad
	}
	var total float64
	for rest != "" {
		number := leading(rest, func(c byte) bool { return c >= '0' && c <= '9' || c == '.' })
		rest = rest[len(number):]
		unit := leading(rest, func(c byte) bool { return (c < '0' || c > '9') && c != '.' && c != ' ' })
		rest = strings.TrimLeft(rest[len(unit):], " ")
		value, err := strconv.ParseFloat(number, 64)
		size, known := durationUnits[unit]
		if err != nil || !known {
			return Duration{}, bad
		}
		total += value * float64(size)
	}
	if total >= math.MaxInt64 {
		return Duration{}, fmt.Errorf("%s is longer than 292 years", quote(s))
	}
	return Duration{time.Duration(math.Round(total))}, nil
}

// String is the shortest way to write the duration: "2m", not "2m0s".
func (d Duration) String() string {
	rest := d.Duration
	if rest <= 0 {
		return "0"
	}
	if rest%(365*day) == 0 {
		return fmt.Sprintf("%dy", rest/(365*day))
	}
	var b strings.Builder
	if n := rest / day; n > 0 {
		fmt.Fprintf(&b, "%dd", n)
		rest %= day
	}
	if rest == 0 {
		return b.String()
	}
	text := rest.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return b.String() + text
}

// MarshalText writes String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDuration(string(b))
	return err
}

// Size is a number of bytes, written as "96MiB", "4GiB", "10GB" or a plain
// number. It is never negative.
type Size int64

var sizeUnits = []struct {
	name string
	size float64
}{
	{"tib", 1 << 40},
	{"gib", 1 << 30},
	{"mib", 1 << 20},
	{"kib", 1 << 10},
	{"tb", 1e12},
	{"gb", 1e9},
	{"mb", 1e6},
	{"kb", 1e3},
	{"b", 1},
	{"", 1},
}

// ParseSize reads a Size.
func ParseSize(s string) (Size, error) {
	text := strings.ToLower(strings.TrimSpace(s))
	number := leading(text, func(c byte) bool { return c >= '0' && c <= '9' || c == '.' })
	unit := strings.TrimSpace(text[len(number):])
	value, err := strconv.ParseFloat(number, 64)
	for _, u := range sizeUnits {
		if err == nil && unit == u.name && value*u.size < math.MaxInt64 {
			return Size(value * u.size), nil
		}
	}
	return 0, fmt.Errorf("%s is not a size: write for example \"96MiB\" or \"4GiB\"", quote(s))
}

// String is the size in the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if unit := Size(u.size); s >= unit && s%unit == 0 {
			return strconv.FormatInt(int64(s/unit), 10) + strings.ToUpper(u.name[:1]) + "iB"
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText writes String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what ParseSize reads.
func (s *Size) UnmarshalText(b []byte) (err error) {
	*s, err = ParseSize(string(b))
	return err
}

// ParseRecycle reads worker.recycle_after: "100 jobs" gives jobs, "4GiB" gives
// bytes of growth, "" neither.
func ParseRecycle(s string) (jobs int, growth Size, err error) {
	text := strings.TrimSpace(s)
	if text == "" {
		return 0, 0, nil
	}
	bad := fmt.Errorf("%s is neither a number of jobs (\"100 jobs\") nor a growth (\"4GiB\")", quote(s))
	if n, found := strings.CutSuffix(strings.TrimSuffix(text, "s"), "job"); found {
		jobs, err = strconv.Atoi(strings.TrimSpace(n))
		if err != nil || jobs < 1 {
			return 0, 0, bad
		}
		return jobs, 0, nil
	}
	growth, err = ParseSize(text)
	if err != nil || growth <= 0 {
		return 0, 0, bad
	}
	if growth < 1<<20 {
		return 0, 0, errors.Join(fmt.Errorf("%s is less than a MiB: a worker would restart after every job", quote(s)))
	}
	return 0, growth, nil
}

// leading is the longest prefix of s whose bytes satisfy ok.
func leading(s string, ok func(byte) bool) string {
	for i := range len(s) {
		if !ok(s[i]) {
			return s[:i]
		}
	}
	return s
}
