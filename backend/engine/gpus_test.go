//go:build linux

package engine

import (
	"testing"

	"easel/config"
)

func TestWorkersArePinnedByUUIDWhereItIsKnown(t *testing.T) {
	two := map[int]string{0: "GPU-a", 1: "GPU-b"}
	for name, c := range map[string]struct {
		gpus  []int
		names map[int]string
		want  []string
	}{
		"one card":                       {[]int{0}, map[int]string{0: "GPU-a"}, []string{""}},
		"no card seen":                   {[]int{0}, nil, []string{""}},
		"the first of two":               {[]int{0}, two, []string{"GPU-a"}},
		"the second of two":              {[]int{1}, two, []string{"GPU-b"}},
		"one worker each":                {[]int{0, 1}, two, []string{"GPU-a", "GPU-b"}},
		"one each, names not known":      {[]int{0, 1}, nil, []string{"0", "1"}},
		"a card that NVML does not know": {[]int{0, 2}, two, []string{"GPU-a", "2"}},
	} {
		cfg := config.Default()
		cfg.Worker.ComfyUI, cfg.Worker.GPUs = "/opt/ComfyUI", c.gpus
		list := specs(cfg, Options{}, c.names)
		if len(list) != len(c.want) {
			t.Errorf("%s: %d workers", name, len(list))
			continue
		}
		for i, s := range list {
			if s.GPU != c.want[i] {
				t.Errorf("%s: worker %s is pinned to %q, want %q", name, s.ID, s.GPU, c.want[i])
			}
		}
	}
}
