//go:build easelfault

package keeper

import (
	"os"
	"path/filepath"
	"testing"

	"easel/backend/process"
)

// faulty makes a box whose processes hit one fault point.
func faulty(t *testing.T, spec string) *box {
	t.Helper()
	b := newBox(t, nil)
	marks := filepath.Join(b.dir, "marks")
	if err := os.Mkdir(marks, 0o700); err != nil {
		t.Fatal(err)
	}
	b.env = []string{"EASEL_FAULT=" + spec, "EASEL_FAULT_DIR=" + marks}
	return b.serve()
}

func TestKeeperDiesBetweenForkAndAnswer(t *testing.T) {
	t.Parallel()
	b := faulty(t, "keeper.after-fork=kill-self")
	first := b.engine()
	if _, err := b.try("/start", b.launchOf("w1", "plain"), nil); err == nil {
		t.Fatal("the keeper answered and should have died")
	}
	b.wait("a new keeper", func() bool { return b.engine().Hello.KeeperPID != first.Hello.KeeperPID })
	now := b.engine()
	if l := now.Hello.Living; len(l) != 1 || l[0].Launch != "w1" || !l[0].Adopted {
		t.Fatalf("living: %+v, want the forked worker", l)
	}
	if l := b.launch("w1", "plain"); l.PID != now.Hello.Living[0].PID || !process.Alive(l.PID, l.StartTicks) {
		t.Errorf("started again as %+v", l)
	}
	b.stop(now.Hello.KeeperPID)
}

func TestKeeperDiesDuringAdoption(t *testing.T) {
	t.Parallel()
	b := faulty(t, "keeper.adoption=kill-self")
	first := b.engine()
	w := b.launch("w1", "plain")
	kill(t, first.Hello.KeeperPID)
	b.wait("another keeper", func() bool { return b.engine().Hello.KeeperPID != first.Hello.KeeperPID })
	now := b.engine()
	if _, err := os.Stat(filepath.Join(b.dir, "marks", "fault-keeper.adoption")); err != nil {
		t.Errorf("the fault point was not hit: %v", err)
	}
	if l := now.Hello.Living; len(l) != 1 || l[0].PID != w.PID {
		t.Errorf("living: %+v", l)
	}
	b.stop(now.Hello.KeeperPID)
}

func TestKeeperDiesBetweenCloexecAndExec(t *testing.T) {
	t.Parallel()
	b := faulty(t, "keeper.before-exec=kill-self")
	first := b.engine()
	w := b.launch("w1", "plain")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b.do("/reload?exe="+exe, nil, nil)
	b.wait("another keeper", func() bool { return b.engine().Hello.KeeperPID != first.Hello.KeeperPID })
	now := b.engine()
	if l := now.Hello.Living; len(l) != 1 || l[0].PID != w.PID || !l[0].Adopted {
		t.Errorf("living: %+v", l)
	}
	b.stop(now.Hello.KeeperPID)
}
