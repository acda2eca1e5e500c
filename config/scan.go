package config

import (
	"bytes"
	"sort"

	"github.com/pelletier/go-toml/v2/unstable"
)

// entry is one key or section header of a file, with its place in the text.
type entry struct {
	path   []string // without the mount's number
	mount  int      // which mount it belongs to, 0 when none
	line   int      // from 1
	header bool     // a [section] or [[section]] line
	inline bool     // within { … }
	start  int      // offset of the key, or of the header's first name
	value  int      // offset of the value; 0 for a header
	end    int      // offset after the value; 0 for a header
}

// maxDepth bounds how deep inline tables are followed: settings nest two deep.
const maxDepth = 8

// scan lists the keys and headers of a TOML text in its order. The text has
// been decoded before, so that what is wrong with it is known already.
func scan(data []byte) ([]entry, error) {
	var s scanner
	s.data, s.lines = data, lineStarts(data)
	s.parser.Reset(data)
	for s.parser.NextExpression() {
		e := s.parser.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			s.header(e)
		case unstable.KeyValue:
			s.keyValue(e, s.prefix, 0)
		}
	}
	return s.entries, s.parser.Error()
}

type scanner struct {
	parser  unstable.Parser
	data    []byte
	lines   []int
	prefix  []string // of the current section
	mount   int
	mounts  int
	entries []entry
}

func (s *scanner) header(e *unstable.Node) {
	names, start, _ := s.names(e.Key())
	s.prefix, s.mount = names, 0
	if names[0] == "mount" {
		if e.Kind == unstable.ArrayTable && len(names) == 1 {
			s.mounts++
		}
		s.mount = max(0, s.mounts-1)
	}
	s.entries = append(s.entries, entry{path: names, mount: s.mount, header: true, start: start, line: s.line(start)})
}

func (s *scanner) keyValue(e *unstable.Node, prefix []string, depth int) {
	names, start, end := s.names(e.Key())
	path := append(append([]string{}, prefix...), names...)
	value := e.Value()
	if value.Kind == unstable.InlineTable && value.Child() != nil && depth < maxDepth {
		for it := value.Children(); it.Next(); {
			if it.Node().Kind == unstable.KeyValue {
				s.keyValue(it.Node(), path, depth+1)
			}
		}
		return
	}
	if len(path) == 1 && path[0] == "mount" && value.Kind == unstable.Array && depth < maxDepth {
		s.inlineMounts(value, path, start, depth)
		return
	}
	// "key = value": the value begins after the sign that follows the last name.
	from := end + bytes.IndexByte(s.data[end:], '=') + 1
	from += len(s.data[from:]) - len(bytes.TrimLeft(s.data[from:], " \t"))
	s.entries = append(s.entries, entry{
		path: path, mount: s.mount, line: s.line(start), inline: depth > 0,
		start: start, value: from, end: int(e.Raw.Offset + e.Raw.Length),
	})
}

// inlineMounts handles mount = [{…}, {…}].
func (s *scanner) inlineMounts(list *unstable.Node, path []string, start, depth int) {
	s.entries = append(s.entries, entry{path: path, line: s.line(start), header: true, start: start})
	for it := list.Children(); it.Next(); {
		if it.Node().Kind != unstable.InlineTable {
			continue
		}
		s.mount = s.mounts
		s.mounts++
		for kv := it.Node().Children(); kv.Next(); {
			if kv.Node().Kind == unstable.KeyValue {
				s.keyValue(kv.Node(), path, depth+1)
			}
		}
	}
	s.mount = 0
}

// names are the parts of a key, where it starts and where it ends.
func (s *scanner) names(it unstable.Iterator) (names []string, start, end int) {
	start = -1
	for it.Next() {
		n := it.Node()
		names = append(names, string(n.Data))
		if start < 0 {
			start = int(n.Raw.Offset)
		}
		end = int(n.Raw.Offset + n.Raw.Length)
	}
	return names, max(start, 0), end
}

func (s *scanner) line(offset int) int {
	return sort.Search(len(s.lines), func(i int) bool { return s.lines[i] > offset })
}

// lineStarts are the offsets at which lines begin.
func lineStarts(data []byte) []int {
	starts := []int{0}
	for i, c := range data {
		if c == '\n' {
			starts = append(starts, i+1)
		}
	}
	return starts
}
