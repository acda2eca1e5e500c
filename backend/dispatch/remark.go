package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// remark is what is to be said about a worker and perhaps a job now.
type remark struct {
	job  string
	text string
}

// remarkOn says something about the lane's worker, and about a job when that is
// not ""; an empty text takes it back.
func (l *lane) remarkOn(job, text string) {
	d := l.d
	d.mu.Lock()
	old := d.remarks[l.id]
	now := remark{job: job, text: text}
	if text == "" {
		delete(d.remarks, l.id)
		now = remark{}
	} else {
		d.remarks[l.id] = now
	}
	d.mu.Unlock()
	if old != now {
		d.hooks.Changed(l.id)
	}
}

// Remark is what is to be said about a worker besides its state: a countdown to
// what will be done to it, say. "" when there is nothing.
func (d *Dispatcher) Remark(worker string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.remarks[worker].text
}

// Note is what is to be said about a job inside a worker, "" when there is nothing.
func (d *Dispatcher) Note(job string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.remarks {
		if r.job == job {
			return r.text
		}
	}
	return ""
}

// Notices are standing remarks about workers and the machine, in the order of the
// workers' names.
func (d *Dispatcher) Notices() []string {
	var out []string
	if why := d.Blocked(); why != "" {
		out = append(out, "nothing is sent to a worker: "+why)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(d.remarks)) {
		out = append(out, "worker "+id+": "+d.remarks[id].text)
	}
	for _, id := range slices.Sorted(maps.Keys(d.foreign)) {
		if n := len(d.foreign[id]); n > 0 {
			out = append(out, fmt.Sprintf("%s of others inside ComfyUI (worker %s)", count(n, "prompt"), id))
		}
	}
	return out
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// seconds is a duration as a countdown shows it.
func seconds(d time.Duration) string {
	return fmt.Sprintf("%d s", max(0, int(d.Round(time.Second)/time.Second)))
}

// gib is a size for people.
func gib(n int64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
