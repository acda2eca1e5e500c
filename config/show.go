package config

import (
	"fmt"
	"regexp"
	"strings"
)

// Init is the text of a fresh configuration file: every key, commented out,
// with its default and what it does.
func Init() string {
	var b strings.Builder
	b.WriteString("# Easel's configuration. A line that begins with # sets nothing: what stands in it is the default.\n")
	b.WriteString("# Every key can be set by the environment too: worker.comfyui is EASEL_WORKER_COMFYUI.\n")
	b.WriteString("# `easel config check` looks this file over; `easel config show` says where each value comes from.\n")
	section := ""
	for _, k := range keys {
		if s := k.section(); s != section {
			section = s
			fmt.Fprintf(&b, "\n# %s\n", sectionDocs[s])
			if s == "mount" {
				b.WriteString("#[[mount]]\n")
			} else {
				fmt.Fprintf(&b, "[%s]\n", s)
			}
		} else {
			b.WriteByte('\n')
		}
		for line := range strings.SplitSeq(k.Doc, "\n") {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "#%s = %s\n", k.name(), k.Default)
	}
	return b.String()
}

// Value is one setting as Show prints it.
type Value struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // secrets are replaced by ***
	Source string `json:"source"`
}

// Values lists every setting with where it comes from, in the order of the
// file. Secrets are replaced.
func Values(cfg Config, sources Sources) []Value {
	var list []Value
	mounts := false
	for i := range keys {
		if !keys[i].mount {
			list = append(list, valueOf(&cfg, sources, &keys[i], 0))
			continue
		}
		if mounts {
			continue
		}
		mounts = true
		for m := range cfg.Mount {
			for j := range keys {
				if keys[j].mount {
					list = append(list, valueOf(&cfg, sources, &keys[j], m))
				}
			}
		}
	}
	return list
}

func valueOf(cfg *Config, sources Sources, k *key, mount int) Value {
	v := Value{Key: k.numbered(mount), Value: redact(k.in(cfg, mount).Interface()), Source: SourceDefault}
	if s, ok := sources[v.Key]; ok {
		v.Source = s
	}
	return v
}

// Show is the whole configuration as text, a key a line, each with where its
// value comes from. Secrets are replaced.
func Show(cfg Config, sources Sources) string {
	values := Values(cfg, sources)
	width := 0
	lines := make([]string, len(values))
	for i, v := range values {
		lines[i] = v.Key + " = " + literal(v.Value)
		width = max(width, min(len(lines[i]), 52))
	}
	var b strings.Builder
	for i, v := range values {
		fmt.Fprintf(&b, "%-*s  # %s\n", width, lines[i], v.Source)
	}
	return b.String()
}

var (
	// userinfo is NAME:PASSWORD@ or TOKEN@ after a scheme.
	userinfo = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s"']*@`)
	// secretWord is --api-key VALUE, TOKEN=VALUE, ?token=VALUE.
	secretWord = regexp.MustCompile(`(?i)([\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|credential)[\w-]*(?:\s*[=:]\s*|\s+))("[^"]*"|'[^']*'|[^\s&"']+)`)
	secretFlag = regexp.MustCompile(`(?i)^--?[\w-]*(?:token|secret|passw(?:or)?d|api[_-]?key|access[_-]?key|credential)[\w-]*$`)
)

const hidden = "***"

// redact replaces what looks like a secret in a value.
func redact(v any) any {
	switch v := v.(type) {
	case string:
		return redactText(v)
	case []string:
		list := make([]string, len(v))
		for i, s := range v {
			list[i] = redactText(s)
			if i > 0 && secretFlag.MatchString(v[i-1]) && !strings.HasPrefix(s, "-") {
				list[i] = hidden
			}
		}
		return list
	}
	return v
}

func redactText(s string) string {
	s = userinfo.ReplaceAllString(s, "${1}"+hidden+"@")
	return secretWord.ReplaceAllString(s, "${1}"+hidden)
}
