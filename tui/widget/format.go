package widget

import (
	"fmt"
	"strconv"
	"time"
)

// Duration writes d as 8.2s, 1m40s, 2h14m or 3d4h: the two units that matter.
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// Age writes d as one unit: 12s, 4m, 2h, 3d. Figures that grow all the time
// are drawn with it, so that the screen changes once a minute and not each second.
func Age(d time.Duration) string {
	switch {
	case d < time.Second:
		return "now"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 24*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours())/24) + "d"
}

// Uptime is Age with a second unit from an hour on: 2h14m.
func Uptime(d time.Duration) string {
	if d < time.Minute {
		return "<1m"
	}
	if d < time.Hour {
		return strconv.Itoa(int(d.Minutes())) + "m"
	}
	return Duration(d)
}

// Seconds is Duration of s seconds.
func Seconds(s float64) string {
	if !(s > 0) || s > 1e8 {
		s = 0
	}
	return Duration(time.Duration(s * float64(time.Second)))
}

// Bytes writes n in B, KiB, MiB or GiB.
func Bytes(n int64) string {
	f := float64(n)
	switch {
	case n < 0:
		return "?"
	case n < 1<<10:
		return strconv.FormatInt(n, 10) + " B"
	case n < 1<<20:
		return strconv.FormatFloat(f/(1<<10), 'f', 0, 64) + " KiB"
	case n < 1<<30:
		return strconv.FormatFloat(f/(1<<20), 'f', 1, 64) + " MiB"
	}
	return strconv.FormatFloat(f/(1<<30), 'f', 1, 64) + " GiB"
}

// GiB is n bytes in GiB without the unit, one decimal.
func GiB(n int64) string { return strconv.FormatFloat(float64(n)/(1<<30), 'f', 1, 64) }

// Percent writes a fraction of 0–1 as "68 %".
func Percent(f float64) string {
	switch {
	case !(f > 0):
		f = 0
	case f > 1:
		f = 1
	}
	return strconv.Itoa(int(f*100)) + " %"
}

// Number writes n with a comma between thousands.
func Number(n int) string {
	s := strconv.Itoa(n)
	if n < 0 {
		return s
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
