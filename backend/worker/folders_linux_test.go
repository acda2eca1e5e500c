//go:build linux

package worker

import (
	"os"
	"testing"

	"easel/backend/comfy"
)

func TestFoldersOfACommandLine(t *testing.T) {
	for name, tc := range map[string]struct {
		argv []string
		want comfy.Dirs
	}{
		"beside main.py": {
			[]string{"python", "main.py", "--port", "8188"},
			comfy.Dirs{Output: "/opt/ui/output", Input: "/opt/ui/input", Temp: "/opt/ui/temp"},
		},
		"main.py elsewhere": {
			[]string{"python3", "-s", "/srv/ComfyUI/main.py"},
			comfy.Dirs{Output: "/srv/ComfyUI/output", Input: "/srv/ComfyUI/input", Temp: "/srv/ComfyUI/temp"},
		},
		"a base directory": {
			[]string{"python", "main.py", "--base-directory=data", "--output-directory", "/mnt/out"},
			comfy.Dirs{Output: "/mnt/out", Input: "/opt/ui/data/input", Temp: "/opt/ui/data/temp"},
		},
		"all of them": {
			[]string{"python", "main.py", "--output-directory", "o", "--input-directory", "i", "--temp-directory", "/t"},
			comfy.Dirs{Output: "/opt/ui/o", Input: "/opt/ui/i", Temp: "/t/temp"},
		},
		"not told": {[]string{"comfy", "launch"}, comfy.Dirs{}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := foldersIn(tc.argv, "/opt/ui"); got != tc.want {
				t.Errorf("%+v\nwant %+v", got, tc.want)
			}
		})
	}
	if got := foldersOf(os.Getpid()); got != (comfy.Dirs{}) {
		t.Errorf("folders of a process that is no ComfyUI: %+v", got)
	}
}
