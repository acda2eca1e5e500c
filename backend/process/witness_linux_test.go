package process

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestWitness looks at the end of a process that is another one's child.
func TestWitness(t *testing.T) {
	for _, c := range []struct {
		name           string
		status, signal int
		end            func(*Witness)
	}{
		{"exit", 7, 0, nil},
		{"kill", -1, 9, func(w *Witness) { _ = w.Signal(unix.SIGKILL) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			body := "exec sleep 60"
			if c.end == nil {
				body = "read x; exit 7"
			}
			// the shell in the middle is the parent, and reaps
			cmd := exec.Command("sh", "-c", "sh -c '"+body+"' <&3 & echo $!; wait; sleep 60")
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.ExtraFiles = []*os.File{r}
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			pid, _ := strconv.Atoi(strings.TrimSpace(line))
			ticks, err := StartTicks(pid)
			if err != nil {
				t.Fatal(err)
			}
			x := Watch(pid, ticks)
			defer x.Close()
			if !x.Alive() {
				t.Error("not alive")
			}
			if c.end != nil {
				c.end(x)
			} else {
				_, _ = w.WriteString("go\n")
			}
			for end := time.Now().Add(5 * time.Second); x.Alive() && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
			status, signal, ok := x.Exit(t.Context())
			var u unix.Utsname
			_ = unix.Uname(&u)
			if !ok {
				t.Skipf("kernel %s does not tell how a stranger's process ended", unix.ByteSliceToString(u.Release[:]))
			}
			if status != c.status || signal != c.signal {
				t.Errorf("status %d signal %d, want %d %d", status, signal, c.status, c.signal)
			}
		})
	}
}
