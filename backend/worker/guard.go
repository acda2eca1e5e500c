package worker

import (
	"fmt"
	"slices"

	"easel/backend/evidence"
)

// Guard says how the memory of a worker is watched, for `easel doctor`.
type Guard struct {
	// Group is the cgroup that the running launch has for itself, "" when it has none.
	Group string
	// Limit is that of the group, in bytes; 0: none.
	Limit int64
	// Note says why there is no group or no limit; "" when there is.
	Note string
}

// Guard is how the memory of the running launch, or of the last one, is watched.
func (m *Manager) Guard() Guard {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guard
}

// makeGroup makes the cgroup of a launch; the zero Group when none can be had.
func (m *Manager) makeGroup(launch string) evidence.Group {
	if m.spec.NoCgroup {
		return evidence.Group{}
	}
	g, err := makeGroup(m.spec.ID, launch, m.spec.MemoryLimit)
	guard := Guard{Group: g.Path}
	if g.Dir != "" {
		guard.Limit = max(0, g.Read().Limit)
	}
	if err != nil {
		guard.Note = fmt.Sprintf("no cgroup of its own: %v; its oom_score_adj is raised instead", err)
		if g.Dir != "" {
			guard.Note = err.Error()
		}
	}
	m.setGuard(guard)
	return g
}

func (m *Manager) setGuard(g Guard) {
	m.mu.Lock()
	changed := g.Note != m.guard.Note
	m.guard = g
	m.mu.Unlock()
	if changed && g.Note != "" {
		m.log.Info("memory of the worker", "note", g.Note)
	}
}

// checkGroup gives a cgroup back that the process did not get into.
func (m *Manager) checkGroup(pid int) {
	r := &m.run
	if r.rec.Group.Dir == "" || inGroup(pid, r.rec.Group) {
		return
	}
	m.dropGroup()
	m.setGuard(Guard{Note: "no cgroup of its own: the process could not be moved there"})
}

// dropGroup lets go of the cgroup of the launch. It is removed a little later, since
// a restart must not wait for that.
func (m *Manager) dropGroup() {
	r := &m.run
	if r.rec.Group.Dir != "" {
		r.oldGroups = append(r.oldGroups, r.rec.Group)
	}
	r.rec.Group, r.rec.OOMKills = evidence.Group{}, 0
}

// removeGroups removes the cgroups of launches that have ended.
func (m *Manager) removeGroups() {
	m.run.oldGroups = slices.DeleteFunc(m.run.oldGroups, removeGroup)
}

// newWatch begins to watch the process of a launch; gone says that it has ended.
func (m *Manager) newWatch(cur *launch, gone bool) *watch {
	w := newWatch(cur.pid, cur.ticks, m.run.rec.Group, m.run.rec.OOMKills, gone)
	w.gpu, w.vram = m.run.rec.GPU, m.o.VRAM
	return w
}
