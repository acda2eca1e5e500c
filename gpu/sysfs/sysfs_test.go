package sysfs

import (
	"os"
	"path/filepath"
	"testing"
)

// tree writes files below a new root; the paths and values are those of an RX 7900
// beside an Intel card.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestAnAMDCard(t *testing.T) {
	const d = "class/drm/card1/device/"
	root := tree(t, map[string]string{
		"class/drm/card0/device/vendor": "0x8086",
		d + "vendor":                    "0x1002", d + "device": "0x744c", d + "unique_id": "4a2f",
		d + "mem_info_vram_total": "25753026560", d + "mem_info_vram_used": "1073741824", d + "gpu_busy_percent": "42",
		d + "hwmon/hwmon3/temp1_input": "61000", d + "hwmon/hwmon3/power1_average": "210000000", d + "hwmon/hwmon3/power1_cap": "327000000",
		d + "hwmon/hwmon3/freq1_input": "2400000000", d + "hwmon/hwmon3/freq2_input": "1249000000",
		d + "drm/renderD129/dev":                    "226:129",
		"class/kfd/kfd/topology/nodes/0/gpu_id":     "0",
		"class/kfd/kfd/topology/nodes/1/gpu_id":     "5150",
		"class/kfd/kfd/topology/nodes/1/properties": "vendor_id 4098\ndrm_render_minor 129\nnum_xcc 1",
		"class/kfd/kfd/proc/4711/vram_5150":         "900000000",
		"class/kfd/kfd/proc/4712/vram_5150":         "0",
		"class/kfd/kfd/proc/4713/vram_6666":         "5",
		"module/amdgpu/version":                     "6.8.5",
	})
	s, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Sample(t.Context())
	if err != nil || len(r.Cards) != 1 || r.Driver != "6.8.5" {
		t.Fatalf("%v %+v", err, r)
	}
	c := r.Cards[0]
	if c.Name != "AMD GPU 744c" || c.UUID != "4a2f" || *c.MemoryTotal != 25753026560 || *c.MemoryUsed != 1<<30 || *c.Utilisation != 42 ||
		*c.Temperature != 61 || *c.Power != 210 || *c.PowerLimit != 327 || *c.ClockSM != 2400 || *c.ClockMemory != 1249 {
		t.Errorf("%+v", c)
	}
	if len(c.Processes) != 1 || c.Processes[0].PID != 4711 || *c.Processes[0].Memory != 900000000 {
		t.Errorf("%+v", c.Processes)
	}
	if err := os.RemoveAll(filepath.Join(root, "class/drm/card1")); err != nil {
		t.Fatal(err)
	}
	if r, err = s.Sample(t.Context()); err != nil || !r.Cards[0].Lost {
		t.Errorf("a card that vanished: %v %+v", err, r)
	}
}

func TestNoAMDCard(t *testing.T) {
	if s, err := Open(tree(t, map[string]string{"class/drm/card0/device/vendor": "0x8086"})); err == nil || s != nil {
		t.Errorf("%v %v", s, err)
	}
}
