//go:build linux && cgo

package nvml

import (
	"math"
	"slices"
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"easel/gpu"
)

func itoa(n int) string { return strconv.Itoa(n) }

// query is the reading of one card.
type query struct {
	s     *Sampler
	d     nvml.Device
	fatal nvml.Return // why the card as a whole does not answer, SUCCESS while it does
}

// take calls ask and gives its answer to use. NOT_SUPPORTED and the like leave the
// figure unknown; a lost card ends the query.
func take[T any](q *query, ask func() (T, nvml.Return), use func(T)) bool {
	if q.fatal != nvml.SUCCESS {
		return false
	}
	v, r := ask()
	switch r {
	case nvml.SUCCESS:
		use(v)
		return true
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED:
		q.fatal = r
	}
	return false
}

// memory reads the card's memory. The newer call leaves out what the driver itself
// reserves, as nvidia-smi does.
func (q *query) memory(c *gpu.Card) {
	if q.s.can("nvmlDeviceGetMemoryInfo_v2") && take(q, q.d.GetMemoryInfo_v2, func(m nvml.Memory_v2) {
		c.MemoryUsed, c.MemoryTotal = size(m.Used), size(m.Total)
	}) {
		return
	}
	if q.s.can("nvmlDeviceGetMemoryInfo") {
		take(q, q.d.GetMemoryInfo, func(m nvml.Memory) { c.MemoryUsed, c.MemoryTotal = size(m.Used), size(m.Total) })
	}
}

// size is a count of bytes; the library says all ones for unknown.
func size(n uint64) *int64 {
	if n > math.MaxInt64 {
		return nil
	}
	return gpu.Known(int64(n))
}

// figures reads load, heat, power and clocks.
func (q *query) figures(c *gpu.Card) {
	if q.s.can("nvmlDeviceGetUtilizationRates") {
		take(q, q.d.GetUtilizationRates, func(u nvml.Utilization) { c.Utilisation = gpu.Known(float64(u.Gpu)) })
	}
	number := func(symbol string, ask func() (uint32, nvml.Return), scale float64, to **float64) {
		if q.s.can(symbol) {
			take(q, ask, func(v uint32) { *to = gpu.Known(float64(v) * scale) })
		}
	}
	number("nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return q.d.GetTemperature(nvml.TEMPERATURE_GPU) }, 1, &c.Temperature)
	number("nvmlDeviceGetPowerUsage", q.d.GetPowerUsage, 1e-3, &c.Power)
	number("nvmlDeviceGetEnforcedPowerLimit", q.d.GetEnforcedPowerLimit, 1e-3, &c.PowerLimit)
	number("nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return q.d.GetClockInfo(nvml.CLOCK_SM) }, 1, &c.ClockSM)
	number("nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return q.d.GetClockInfo(nvml.CLOCK_MEM) }, 1, &c.ClockMemory)
}

// reasons are the bits of what slows the clocks, in words. Idle and set clocks are
// left out: nothing is wrong then.
var reasons = []struct {
	bit  uint64
	word string
}{
	{nvml.ClocksEventReasonSwPowerCap, "power cap"},
	{nvml.ClocksThrottleReasonHwSlowdown, "hardware slowdown"},
	{nvml.ClocksEventReasonSyncBoost, "sync boost"},
	{nvml.ClocksEventReasonSwThermalSlowdown, "thermal (software)"},
	{nvml.ClocksThrottleReasonHwThermalSlowdown, "thermal (hardware)"},
	{nvml.ClocksThrottleReasonHwPowerBrakeSlowdown, "power brake"},
}

// health reads what slows the card, and its memory's errors.
func (q *query) health(c *gpu.Card) {
	slow := func(bits uint64) {
		c.Throttle = []string{}
		for _, r := range reasons {
			if bits&r.bit != 0 {
				c.Throttle = append(c.Throttle, r.word)
			}
		}
	}
	if !q.s.can("nvmlDeviceGetCurrentClocksEventReasons") || !take(q, q.d.GetCurrentClocksEventReasons, slow) {
		if q.s.can("nvmlDeviceGetCurrentClocksThrottleReasons") {
			take(q, q.d.GetCurrentClocksThrottleReasons, slow)
		}
	}
	if q.s.can("nvmlDeviceGetTotalEccErrors") {
		take(q, func() (uint64, nvml.Return) {
			return q.d.GetTotalEccErrors(nvml.MEMORY_ERROR_TYPE_UNCORRECTED, nvml.AGGREGATE_ECC)
		}, func(n uint64) { c.ECC = size(n) })
	}
	if q.s.can("nvmlDeviceGetMigMode") {
		take(q, func() (int, nvml.Return) { now, _, r := q.d.GetMigMode(); return now, r }, func(on int) {
			if on == nvml.DEVICE_MIG_ENABLE {
				c.Note = "MIG is on: the figures are of the whole card"
			}
		})
	}
}

// processes reads who holds memory. A process that computes and draws is in both
// lists and counted once.
func (q *query) processes(c *gpu.Card) {
	add := func(list []nvml.ProcessInfo) {
		if c.Processes == nil {
			c.Processes = []gpu.Process{}
		}
		for _, p := range list {
			has := func(o gpu.Process) bool { return o.PID == int(p.Pid) }
			if !slices.ContainsFunc(c.Processes, has) {
				c.Processes = append(c.Processes, gpu.Process{PID: int(p.Pid), Memory: size(p.UsedGpuMemory)})
			}
		}
	}
	for _, l := range []struct {
		symbol string
		ask    func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", q.d.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", q.d.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", q.d.GetMPSComputeRunningProcesses},
	} {
		if q.s.can(l.symbol, l.symbol+"_v2", l.symbol+"_v3") {
			take(q, l.ask, add)
		}
	}
}
