package doctor

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"easel/config"
)

// Bounds of a report file.
const (
	tailBytes = 512 << 10 // of each log
	tailLogs  = 4         // the newest logs of workers
)

// Bundle writes a report that can be sent to someone: a gzipped tar of the findings,
// the status, the configuration, the ends of workers, and the last part of each log.
// Secrets and the path of the home directory are taken out; no job and no picture
// is in it. sources say where the settings come from.
func Bundle(w io.Writer, b *Box, r Report, sources config.Sources) error {
	clean := newRedactor(b.Environ)
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	now := b.Now()
	put := func(name string, body []byte) error {
		body = clean.redact(body)
		h := &tar.Header{Name: "easel-report/" + name, Mode: 0o600, Size: int64(len(body)), ModTime: now, Typeflag: tar.TypeReg}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := t.Write(body)
		return err
	}
	for _, part := range b.parts(r, sources) {
		if err := put(part.name, part.body); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// part is one file of the report.
type part struct {
	name string
	body []byte
}

func (b *Box) parts(r Report, sources config.Sources) []part {
	parts := []part{asJSON("doctor.json", r)}
	if b.Status != nil {
		parts = append(parts, asJSON("status.json", b.Status))
	}
	if len(b.Deaths) > 0 {
		parts = append(parts, asJSON("deaths.json", b.Deaths))
	}
	if b.ConfigErr == nil {
		parts = append(parts, part{"config.txt", []byte(config.Show(b.Config, sources))})
	}
	if text := b.read("/proc/version"); text != "" {
		parts = append(parts, part{"system.txt", []byte(text + "\n" + b.read("/etc/os-release") + "\n" + b.read("/proc/meminfo") + "\n")})
	}
	for _, name := range []string{"engine.log", "keeper.log", "keeper.json"} {
		if body := tailOf(filepath.Join(b.StateDir, name)); len(body) > 0 {
			parts = append(parts, part{name, body})
		}
	}
	for _, path := range b.newestLogs(tailLogs) {
		if body := tailOf(path); len(body) > 0 {
			parts = append(parts, part{"logs/" + filepath.Base(path), body})
		}
	}
	return parts
}

func asJSON(name string, v any) part {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		body = []byte(fmt.Sprintf("{%q: %q}", "error", err.Error()))
	}
	return part{name, append(body, '\n')}
}

// newestLogs are the logs of the last launches, newest first.
func (b *Box) newestLogs(n int) []string {
	files, err := filepath.Glob(filepath.Join(b.StateDir, "logs", "worker-*.log"))
	if err != nil {
		return nil
	}
	at := map[string]time.Time{}
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			at[f] = st.ModTime()
		}
	}
	slices.SortFunc(files, func(a, b string) int { return at[b].Compare(at[a]) })
	return files[:min(n, len(files))]
}

// tailOf is the last part of a file, from the beginning of a line on; nil when it
// cannot be read.
func tailOf(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	from := max(0, st.Size()-tailBytes)
	body, err := io.ReadAll(io.NewSectionReader(f, from, st.Size()-from))
	if err != nil {
		return nil
	}
	if _, rest, ok := bytes.Cut(body, []byte{'\n'}); ok && from > 0 {
		body = rest
	}
	return bytes.Trim(body, "\x00") // the head of a large log is a hole
}

// redactor takes out what must not leave the box.
type redactor struct{ words *strings.Replacer }

const hidden = "***"

var (
	secretName = regexp.MustCompile(`(?i)(?:token|secret|passw|api_?key|access_?key|credential)`)
	userinfo   = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s"'\\]*@`)
	bearer     = regexp.MustCompile(`(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}`)
	secretPair = regexp.MustCompile(`(?i)([\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|credential|signature)[\w-]*"?(?:\s*[=:]\s*|\s+))("[^"\n]*"|'[^'\n]*'|[^\s&"',;]+)`)
	// wellKnown are keys that say themselves what they are: Hugging Face, OpenAI,
	// GitHub, Alibaba Cloud, AWS.
	wellKnown = regexp.MustCompile(`\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|LTAI[A-Za-z0-9]{12,}|AKIA[A-Z0-9]{16})\b`)
)

// newRedactor knows the secrets and the home directory of an environment.
func newRedactor(environ []string) redactor {
	var pairs []string
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case secretName.MatchString(name) && len(value) >= 6:
			pairs = append(pairs, value, hidden)
		case name == "HOME" && len(value) > 1 && value != "/root":
			pairs = append(pairs, value, "~")
		}
	}
	return redactor{strings.NewReplacer(pairs...)}
}

// home is the directory of an account, under which its name can be read.
var home = regexp.MustCompile(`/(home|Users)/[^/\s"':,;]+`)

func (r redactor) redact(body []byte) []byte {
	s := r.words.Replace(string(body))
	s = home.ReplaceAllString(s, "/$1/USER")
	s = userinfo.ReplaceAllString(s, "${1}"+hidden+"@")
	s = bearer.ReplaceAllString(s, "$1 "+hidden)
	s = wellKnown.ReplaceAllString(s, hidden)
	return []byte(secretPair.ReplaceAllString(s, "${1}"+hidden))
}
