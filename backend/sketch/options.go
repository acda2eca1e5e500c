package sketch

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Versions are the releases of ComfyUI whose behaviour the worker can show,
// the default first.
var Versions = []string{"0.3.64", "0.8.0"}

// Options say how the worker runs. ParseArgs makes them from a command line;
// the zero value is not usable.
type Options struct {
	// Listen holds the addresses to bind: names or numbers, no ports.
	Listen []string
	// Port is the TCP port; 0 lets the system choose one.
	Port int
	// BaseDir holds what the other directories are relative to, and models.
	BaseDir string
	// OutputDir, InputDir and UserDir are absolute.
	OutputDir, InputDir, UserDir string
	// TempParent is the directory in which "temp" is made; that one is
	// deleted at the start and after a clean end.
	TempParent string
	// Version is one of Versions.
	Version string
	// MaxUploadMB limits the body of every request, in MiB.
	MaxUploadMB float64
	// PreviewMethod is none, auto, latent2rgb or taesd; every one but none
	// sends previews. PreviewSize is their longest side in pixels.
	PreviewMethod string
	PreviewSize   int
	// CacheNone drops every result as soon as a prompt is done.
	CacheNone bool
	// DisableMetadata keeps prompt and workflow out of saved files.
	DisableMetadata bool
	// CORS is the value of Access-Control-Allow-Origin; empty checks Origin.
	CORS string
	// LogStdout sends log lines below ERROR to stdout. Level is DEBUG, INFO,
	// WARNING, ERROR or CRITICAL.
	LogStdout bool
	Level     string
	// QuietStart leaves out the "Starting server" and URL lines.
	QuietStart bool
	// QuickTest ends the process with status 0 after all is loaded.
	QuickTest bool
	// Faults are the failures to show. FaultState is a file that carries the
	// count of prompts over restarts, so that a fault "@N" strikes once.
	Faults     []Fault
	FaultState string
	// Argv is what /system_stats shows as the command line.
	Argv []string
	// Help is set when the command line asks for the usage text.
	Help bool
}

func (o Options) tempDir() string { return filepath.Join(o.TempParent, "temp") }

// UsageError is a command line that cannot be used. Its text is what
// Python's argparse would print, without the usage.
type UsageError struct{ Msg string }

// Error says what is wrong with the command line.
func (e *UsageError) Error() string { return "easel sketch: error: " + e.Msg }

// ExitCode is 2, as of every argparse program.
func (e *UsageError) ExitCode() int { return 2 }

// arity says how many values follow a flag.
type arity int

const (
	none arity = iota
	exactlyOne
	optional
	oneOrMore
)

// flag is one option of the command line.
type flag struct {
	name, meta string
	n          arity
	help       string
	set        func(*Options, []string) error
}

func ignored(*Options, []string) error { return nil }

func dirFlag(field func(*Options) *string) func(*Options, []string) error {
	return func(o *Options, v []string) error {
		abs, err := filepath.Abs(v[0])
		*field(o) = abs
		return err
	}
}

func oneOf(field func(*Options) *string, choices ...string) func(*Options, []string) error {
	return func(o *Options, v []string) error {
		if !slices.Contains(choices, v[0]) {
			quoted := make([]string, len(choices))
			for i, c := range choices {
				quoted[i] = pyRepr(c)
			}
			return fmt.Errorf("invalid choice: %s (choose from %s)", pyRepr(v[0]), strings.Join(quoted, ", "))
		}
		*field(o) = v[0]
		return nil
	}
}

func intFlag(field func(*Options) *int) func(*Options, []string) error {
	return func(o *Options, v []string) error {
		n, err := strconv.Atoi(v[0])
		if err != nil {
			return fmt.Errorf("invalid int value: %s", pyRepr(v[0]))
		}
		*field(o) = n
		return nil
	}
}

const noEffect = "Accepted for ComfyUI's sake; no effect here."

// flags lists what the worker takes: ComfyUI's own flags as far as they make
// sense without models, then ours.
func flags() []flag {
	return []flag{
		{"--listen", "IP", optional, "Addresses to listen on, with commas between them. Without a value: all. Default: 127.0.0.1.", setListen},
		{"--port", "PORT", exactlyOne, "Port to listen on; 0 chooses a free one. Default: 8188.", setPort},
		{"--base-directory", "BASE_DIRECTORY", exactlyOne, "Directory of models, input, output, temp and user. Default: ./easel-sketch.", dirFlag(func(o *Options) *string { return &o.BaseDir })},
		{"--output-directory", "OUTPUT_DIRECTORY", exactlyOne, "Where SaveImage writes.", dirFlag(func(o *Options) *string { return &o.OutputDir })},
		{"--temp-directory", "TEMP_DIRECTORY", exactlyOne, "Where the directory temp is made. It is deleted at the start and after a clean end.", dirFlag(func(o *Options) *string { return &o.TempParent })},
		{"--input-directory", "INPUT_DIRECTORY", exactlyOne, "Where uploads go and LoadImage reads.", dirFlag(func(o *Options) *string { return &o.InputDir })},
		{"--user-directory", "USER_DIRECTORY", exactlyOne, "Settings and saved workflows. Must exist.", setUserDir},
		{"--database-url", "DATABASE_URL", exactlyOne, noEffect, ignored},
		{"--extra-model-paths-config", "PATH", oneOrMore, noEffect, ignored},
		{"--enable-cors-header", "ORIGIN", optional, "Allow browsers from this origin; without a value, from all.", setCORS},
		{"--max-upload-size", "MAX_UPLOAD_SIZE", exactlyOne, "Largest request body in MiB. Default: 100.", setMaxUpload},
		{"--auto-launch", "", none, noEffect, ignored},
		{"--disable-auto-launch", "", none, noEffect, ignored},
		{"--cuda-device", "DEVICE_ID", exactlyOne, noEffect, ignored},
		{"--preview-method", "[none,auto,latent2rgb,taesd]", exactlyOne, "Previews while EaselSketch draws: none, or any other for yes. Default: auto.", oneOf(func(o *Options) *string { return &o.PreviewMethod }, "none", "auto", "latent2rgb", "taesd")},
		{"--preview-size", "PREVIEW_SIZE", exactlyOne, "Longest side of previews in pixels. Default: 512.", intFlag(func(o *Options) *int { return &o.PreviewSize })},
		{"--cache-classic", "", none, "Keep the results of the last prompt (the default).", ignored},
		{"--cache-none", "", none, "Keep no results.", func(o *Options, _ []string) error { o.CacheNone = true; return nil }},
		{"--gpu-only", "", none, noEffect, ignored},
		{"--highvram", "", none, noEffect, ignored},
		{"--normalvram", "", none, noEffect, ignored},
		{"--lowvram", "", none, noEffect, ignored},
		{"--novram", "", none, noEffect, ignored},
		{"--cpu", "", none, noEffect, ignored},
		{"--reserve-vram", "RESERVE_VRAM", exactlyOne, noEffect, ignored},
		{"--disable-smart-memory", "", none, noEffect, ignored},
		{"--disable-metadata", "", none, "Save no prompt and no workflow in the pictures.", func(o *Options, _ []string) error { o.DisableMetadata = true; return nil }},
		{"--disable-all-custom-nodes", "", none, noEffect, ignored},
		{"--disable-api-nodes", "", none, noEffect, ignored},
		{"--dont-print-server", "", none, "Do not print the address at the start.", func(o *Options, _ []string) error { o.QuietStart = true; return nil }},
		{"--quick-test-for-ci", "", none, "Load everything, then end with status 0.", func(o *Options, _ []string) error { o.QuickTest = true; return nil }},
		{"--verbose", "{DEBUG,INFO,WARNING,ERROR,CRITICAL}", optional, "Least important level to log; without a value: DEBUG.", setVerbose},
		{"--log-stdout", "", none, "Log to stdout what is less than an error. Default: all to stderr.", func(o *Options, _ []string) error { o.LogStdout = true; return nil }},
		{"--comfy-version", "{" + strings.Join(Versions, ",") + "}", exactlyOne, "Which ComfyUI to behave like. Default: " + Versions[0] + ".", oneOf(func(o *Options) *string { return &o.Version }, Versions...)},
		{"--fault", "NAME[=ARG][@N]", exactlyOne, "Fail on purpose; may be given several times. See below.", setFault},
		{"--fault-state", "FILE", exactlyOne, "Count the prompts for @N in this file, over restarts too.", dirFlag(func(o *Options) *string { return &o.FaultState })},
	}
}

func setListen(o *Options, v []string) error {
	if len(v) == 0 {
		o.Listen = []string{"0.0.0.0", "::"}
		return nil
	}
	o.Listen = strings.Split(v[0], ",")
	return nil
}

func setPort(o *Options, v []string) error {
	n, err := strconv.Atoi(v[0])
	if err != nil {
		return fmt.Errorf("invalid int value: %s", pyRepr(v[0]))
	}
	if n < 0 || n > math.MaxUint16 {
		return fmt.Errorf("%d is not a port: use 0 to 65535", n)
	}
	o.Port = n
	return nil
}

func setUserDir(o *Options, v []string) error {
	abs, err := filepath.Abs(v[0])
	if err != nil {
		return err
	}
	if st, err := os.Stat(abs); err != nil || !st.IsDir() {
		return fmt.Errorf("%s does not exist. Please check the path.", v[0]) //nolint:staticcheck // argparse's words
	}
	o.UserDir = abs
	return nil
}

func setCORS(o *Options, v []string) error {
	o.CORS = "*"
	if len(v) > 0 {
		o.CORS = v[0]
	}
	return nil
}

func setMaxUpload(o *Options, v []string) error {
	f, err := strconv.ParseFloat(v[0], 64)
	if err != nil || f <= 0 {
		return fmt.Errorf("invalid float value: %s", pyRepr(v[0]))
	}
	o.MaxUploadMB = f
	return nil
}

func setVerbose(o *Options, v []string) error {
	if len(v) == 0 {
		o.Level = "DEBUG"
		return nil
	}
	return oneOf(func(o *Options) *string { return &o.Level }, "DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")(o, v)
}

func setFault(o *Options, v []string) error {
	f, err := ParseFault(v[0])
	if err == nil {
		o.Faults = append(o.Faults, f)
	}
	return err
}

// ParseArgs reads the command line after `easel sketch`. What it cannot use
// is a *UsageError.
func ParseArgs(args []string) (Options, error) {
	o := Options{
		Listen: []string{"127.0.0.1"}, Port: 8188, Version: Versions[0], MaxUploadMB: 100,
		PreviewMethod: "auto", PreviewSize: 512, Level: "INFO",
		Argv: append([]string{"easel", "sketch"}, args...),
	}
	var unknown []string
	for i := 0; i < len(args); {
		name, attached, has := strings.Cut(args[i], "=")
		i++
		if name == "--help" || name == "-h" {
			o.Help = true
			return o, nil
		}
		at := slices.IndexFunc(flags(), func(f flag) bool { return f.name == name })
		if at < 0 {
			unknown = append(unknown, args[i-1])
			continue
		}
		f := flags()[at]
		var vals []string
		if has {
			vals = []string{attached}
		} else {
			for i < len(args) && f.takes(len(vals)) && !strings.HasPrefix(args[i], "--") {
				vals = append(vals, args[i])
				i++
			}
		}
		if err := f.apply(&o, vals, has); err != nil {
			return o, &UsageError{Msg: "argument " + f.name + ": " + err.Error()}
		}
	}
	if len(unknown) > 0 {
		return o, &UsageError{Msg: "unrecognized arguments: " + strings.Join(unknown, " ")}
	}
	return o, o.defaults()
}

func (f flag) takes(have int) bool {
	return f.n == oneOrMore || have == 0 && (f.n == exactlyOne || f.n == optional)
}

func (f flag) apply(o *Options, vals []string, attached bool) error {
	switch {
	case f.n == none && attached:
		return fmt.Errorf("ignored explicit argument %s", pyRepr(vals[0]))
	case f.n == exactlyOne && len(vals) == 0:
		return fmt.Errorf("expected one argument")
	case f.n == oneOrMore && len(vals) == 0:
		return fmt.Errorf("expected at least one argument")
	}
	return f.set(o, vals)
}

// defaults fills in the directories that were not given.
func (o *Options) defaults() error {
	if o.BaseDir == "" {
		abs, err := filepath.Abs("easel-sketch")
		if err != nil {
			return err
		}
		o.BaseDir = abs
	}
	for _, d := range []struct {
		dir  *string
		name string
	}{{&o.OutputDir, "output"}, {&o.InputDir, "input"}, {&o.UserDir, "user"}, {&o.TempParent, ""}} {
		if *d.dir == "" {
			*d.dir = filepath.Join(o.BaseDir, d.name)
		}
	}
	return nil
}

// Usage is the text of --help: every flag, one entry each, then the faults.
func Usage() string {
	var b strings.Builder
	b.WriteString(usageLine())
	b.WriteString("\nEasel's built-in worker: ComfyUI's API over nodes that need no model.\n\noptions:\n")
	b.WriteString("  -h, --help            show this help message and exit\n")
	for _, f := range flags() {
		head := "  " + f.name + f.suffix()
		if len(head) < 23 {
			head += strings.Repeat(" ", 24-len(head))
		} else {
			head += "\n" + strings.Repeat(" ", 24)
		}
		b.WriteString(head + wrap(f.help, 78, 24) + "\n")
	}
	b.WriteString("\nfaults (N is the Nth prompt since the start; without @N, every prompt):\n")
	for _, k := range faultKinds {
		head := "  " + k.name
		if k.arg != "" {
			head += "=" + k.arg
		}
		head += strings.Repeat(" ", max(24-len(head), 1))
		b.WriteString(head + wrap(k.help, 78, 24) + "\n")
	}
	return b.String()
}

func (f flag) suffix() string {
	switch f.n {
	case exactlyOne:
		return " " + f.meta
	case optional:
		return " [" + f.meta + "]"
	case oneOrMore:
		return " " + f.meta + " [" + f.meta + " ...]"
	}
	return ""
}

func usageLine() string {
	line, out := "usage: easel sketch [-h]", ""
	for _, f := range flags() {
		part := " [" + f.name + f.suffix() + "]"
		if len(line)+len(part) > 79 {
			out += line + "\n"
			line = strings.Repeat(" ", 19)
		}
		line += part
	}
	return out + line + "\n"
}

func wrap(text string, width, indent int) string {
	var b strings.Builder
	col := indent
	for i, w := range strings.Fields(text) {
		if i > 0 {
			if col+1+len(w) > width {
				b.WriteString("\n" + strings.Repeat(" ", indent))
				col = indent
			} else {
				b.WriteByte(' ')
				col++
			}
		}
		b.WriteString(w)
		col += len(w)
	}
	return b.String()
}

// parseSize reads "512MiB", "2G", "1000000": bytes, with k, M, G, T as powers
// of 1024.
func parseSize(s string) (int64, error) {
	t := strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s), "B"), "I")
	shift := 0
	for i, u := range "KMGT" {
		if strings.HasSuffix(t, string(u)) {
			shift, t = 10*(i+1), t[:len(t)-1]
			break
		}
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f <= 0 || f*float64(int64(1)<<shift) > math.MaxInt64/2 {
		return 0, fmt.Errorf("%q is not a size: write for example 512MiB", s)
	}
	return int64(f * float64(int64(1)<<shift)), nil
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration: write for example 1.5s or 2m", s)
	}
	return d, nil
}
