//go:build !linux

package worker

import (
	"time"

	"easel/backend/evidence"
)

// makeGroup makes none: cgroups are Linux's.
func makeGroup(string, string, int64) (evidence.Group, error) {
	return evidence.Group{}, evidence.ErrNoGroups
}

func inGroup(int, evidence.Group) bool { return false }

func removeGroup(evidence.Group) bool { return true }

func sweepGroups(time.Time) {}
