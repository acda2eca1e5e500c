package cmd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"easel/backend"
)

// selector picks jobs by ids or by --group, --state and --owner.
type selector struct {
	group, owner string
	states       []string
}

func (s *selector) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.group, "group", "", "the jobs of this `group`")
	c.Flags().StringVar(&s.owner, "owner", "", "the jobs of this `owner`")
	c.Flags().StringSliceVar(&s.states, "state", nil, "jobs in one of these `states`: queued, held, running, succeeded, failed, cancelled")
}

// filter is the selection of a command with these arguments.
func (s *selector) filter(c *cobra.Command, ids []string) (backend.JobFilter, error) {
	f := backend.JobFilter{IDs: ids, Group: s.group, Owner: s.owner}
	for _, state := range s.states {
		st := backend.JobState(strings.ToLower(strings.TrimSpace(state)))
		if !st.Valid() {
			return f, usageError(c, fmt.Sprintf("--state %q: not a state; they are queued, held, running, succeeded, failed, cancelled", clean(state)))
		}
		f.States = append(f.States, st)
	}
	for _, id := range ids {
		if err := checkID(id); err != nil {
			return f, err
		}
	}
	if len(ids) > 0 && (s.group != "" || s.owner != "" || len(s.states) > 0) {
		return f, usageError(c, "give ids, or --group, --state and --owner, not both")
	}
	return f, nil
}

// some demands that the selection says something, so that forgetting it does not
// mean every job.
func (s *selector) some(c *cobra.Command, ids []string) (backend.JobFilter, error) {
	f, err := s.filter(c, ids)
	if err == nil && f.Empty() {
		err = usageError(c, c.CommandPath()+" needs ids, or --group, --state or --owner")
	}
	return f, err
}

// minPrefix is how many characters of an id are needed to name a job.
const minPrefix = 4

// checkID refuses what cannot be an id before the engine is asked.
func checkID(id string) error {
	if strings.IndexFunc(id, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF-", r) }) >= 0 {
		return &exit{code: codeNotFound, kind: backend.FailNotFound, message: fmt.Sprintf("no job %q: an id has only the characters 0-9, a-f and -", clean(id)), hints: []string{"`easel jobs ls` lists ids"}}
	}
	if len(id) < minPrefix {
		return &exit{code: codeUsage, kind: backend.FailUsage, message: fmt.Sprintf("%q is too short for an id: at least %d characters", id, minPrefix)}
	}
	return nil
}

// lower is ids as they are kept: in lower case.
func lower(ids []string) []string {
	out := slices.Clone(ids)
	for i := range out {
		out[i] = strings.ToLower(out[i])
	}
	return out
}
