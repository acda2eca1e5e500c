package backend

import (
	"bytes"
	"fmt"
	"time"
)

// timeLayout is RFC 3339 in UTC with milliseconds, the one form of a time in
// Easel's JSON.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Time is a moment in Easel's JSON: RFC 3339 UTC with milliseconds, null while
// it has not happened (the zero value).
type Time struct{ time.Time }

// Now is the present moment, cut to the millisecond that JSON keeps.
func Now() Time { return At(time.Now()) }

// At turns t into a Time. A zero t stays "has not happened".
func At(t time.Time) Time {
	if t.IsZero() {
		return Time{}
	}
	return Time{t.UTC().Truncate(time.Millisecond)}
}

// Millis is the Time of ms milliseconds since 1970; 0 is "has not happened".
func Millis(ms int64) Time {
	if ms == 0 {
		return Time{}
	}
	return Time{time.UnixMilli(ms).UTC()}
}

// Milli is the inverse of Millis.
func (t Time) Milli() int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// MarshalJSON writes the moment, or null.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

// UnmarshalJSON reads any RFC 3339 time, or null.
func (t *Time) UnmarshalJSON(b []byte) error {
	if bytes.Equal(b, []byte("null")) {
		*t = Time{}
		return nil
	}
	parsed, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(b))
	if err != nil {
		return fmt.Errorf("time %.40s: not RFC 3339", b)
	}
	*t = At(parsed)
	return nil
}
