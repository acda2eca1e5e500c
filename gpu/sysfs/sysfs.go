// Package sysfs reads AMD cards by what the kernel's amdgpu driver shows under
// /sys. It needs no library and no rights. Who holds memory is known for processes
// that compute (ROCm), by the files of amdkfd.
package sysfs

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"easel/gpu"
)

// amd is the vendor of the cards that are read.
const amd = "0x1002"

// Sampler reads the files under a root.
type Sampler struct {
	root  string // "/sys"
	cards []card
}

// card is where one card's files are.
type card struct {
	dir   string // its device
	hwmon string // "" when it has none
	kfd   string // its number in amdkfd, "" when it does not compute
}

var _ gpu.Sampler = (*Sampler)(nil)

// Open finds the cards below root, which is /sys. The error is a *gpu.Error.
func Open(root string) (gpu.Sampler, error) {
	s := &Sampler{root: root}
	dirs, _ := filepath.Glob(filepath.Join(root, "class/drm/card[0-9]*/device"))
	for _, d := range dirs {
		if strings.Contains(filepath.Base(filepath.Dir(d)), "-") { // a connector: card0-HDMI-A-1
			continue
		}
		if text(d, "vendor") == amd && text(d, "mem_info_vram_total") != "" {
			s.cards = append(s.cards, s.card(d))
		}
	}
	if len(s.cards) == 0 {
		return nil, gpu.Errorf(gpu.NoLibrary, "there is no card of the amdgpu driver")
	}
	slices.SortFunc(s.cards, func(a, b card) int { return strings.Compare(bus(a.dir), bus(b.dir)) })
	return s, nil
}

// bus is the card's place on the PCI bus, by which cards are counted.
func bus(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return filepath.Base(real)
	}
	return dir
}

func (s *Sampler) card(dir string) card {
	c := card{dir: dir}
	if m, _ := filepath.Glob(filepath.Join(dir, "hwmon/hwmon*")); len(m) > 0 {
		c.hwmon = m[0]
	}
	render, _ := filepath.Glob(filepath.Join(dir, "drm/renderD*"))
	if len(render) == 0 {
		return c
	}
	minor := strings.TrimPrefix(filepath.Base(render[0]), "renderD")
	nodes, _ := filepath.Glob(filepath.Join(s.root, "class/kfd/kfd/topology/nodes/*"))
	for _, n := range nodes {
		if strings.Contains("\n"+text(n, "properties")+"\n", "\ndrm_render_minor "+minor+"\n") {
			c.kfd = text(n, "gpu_id")
		}
	}
	return c
}

// Source is gpu.AMDGPU.
func (s *Sampler) Source() string { return gpu.AMDGPU }

// Close does nothing.
func (s *Sampler) Close() error { return nil }

// Sample reads every card.
func (s *Sampler) Sample(context.Context) (gpu.Reading, error) {
	r := gpu.Reading{At: time.Now(), Source: gpu.AMDGPU, Driver: text(s.root, "module/amdgpu/version"), Cards: []gpu.Card{}}
	for i, c := range s.cards {
		r.Cards = append(r.Cards, s.read(i, c))
	}
	return r, nil
}

func (s *Sampler) read(i int, c card) gpu.Card {
	out := gpu.Card{Index: i, Name: name(c.dir), UUID: text(c.dir, "unique_id")}
	if out.MemoryTotal = size(c.dir, "mem_info_vram_total"); out.MemoryTotal == nil {
		out.Lost, out.Note = true, "the card no longer answers: see the kernel's log (dmesg); restart the box"
		return out
	}
	out.MemoryUsed = size(c.dir, "mem_info_vram_used")
	out.Utilisation = scaled(c.dir, 1, "gpu_busy_percent")
	out.Temperature = scaled(c.hwmon, 1e-3, "temp1_input")
	out.Power = scaled(c.hwmon, 1e-6, "power1_average", "power1_input")
	out.PowerLimit = scaled(c.hwmon, 1e-6, "power1_cap")
	out.ClockSM = scaled(c.hwmon, 1e-6, "freq1_input")
	out.ClockMemory = scaled(c.hwmon, 1e-6, "freq2_input")
	if c.kfd != "" {
		out.Processes = s.processes(c.kfd)
	}
	return out
}

// processes are those that compute and hold memory of the card.
func (s *Sampler) processes(kfd string) []gpu.Process {
	out := []gpu.Process{}
	files, _ := filepath.Glob(filepath.Join(s.root, "class/kfd/kfd/proc/[0-9]*", "vram_"+kfd))
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		used := size(filepath.Dir(f), filepath.Base(f))
		if err == nil && used != nil && *used > 0 {
			out = append(out, gpu.Process{PID: pid, Memory: used})
		}
	}
	return out
}

// name is what the card is called; cards for the desk have no product name.
func name(dir string) string {
	if n := text(dir, "product_name"); n != "" {
		return n
	}
	if id := strings.TrimPrefix(text(dir, "device"), "0x"); id != "" {
		return "AMD GPU " + id
	}
	return "AMD GPU"
}

func text(dir, file string) string {
	if dir == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func size(dir, file string) *int64 {
	n, err := strconv.ParseInt(text(dir, file), 10, 64)
	if err != nil || n < 0 {
		return nil
	}
	return &n
}

// scaled is the number in the first of the files that has one.
func scaled(dir string, by float64, files ...string) *float64 {
	for _, f := range files {
		if v, err := strconv.ParseFloat(text(dir, f), 64); err == nil {
			return gpu.Known(v * by)
		}
	}
	return nil
}
