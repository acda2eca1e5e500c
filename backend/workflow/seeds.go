package workflow

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"strings"
)

// maxSeed bounds the seeds that are drawn: 2^50, as the web page draws them, so
// that no reader in JavaScript damages one.
const maxSeed = 1 << 50

// FindSeeds lists the seeds of a graph in its order: inputs called seed or
// noise_seed (or ending so) that hold an integer, and where such an input comes
// from a node that only holds a number, that node's value.
func FindSeeds(doc Doc) []Ref {
	places := doc.Graph.seeds()
	refs := make([]Ref, len(places))
	for i, p := range places {
		refs[i] = doc.Graph.ref(p)
	}
	return refs
}

// seeds are the places of the seeds, each once.
func (g Graph) seeds() []place {
	var list []place
	seen := map[place]bool{}
	for i, n := range g.nodes {
		for j, in := range n.Inputs {
			if !isSeedName(in.Name) {
				continue
			}
			p, ok := g.seedAt(place{i, j})
			if ok && !seen[p] {
				seen[p] = true
				list = append(list, p)
			}
		}
	}
	return list
}

func isSeedName(name string) bool {
	last := strings.ToLower(name[strings.LastIndexByte(name, '.')+1:])
	return last == "seed" || strings.HasSuffix(last, "_seed")
}

// seedAt follows an input to the constant it comes from.
func (g Graph) seedAt(p place) (place, bool) {
	for range len(g.nodes) + 1 {
		in := g.at(p)
		if in.Link == nil {
			return p, isInteger(in.Value)
		}
		i, ok := g.byID[in.Link.Node]
		if !ok {
			return p, false
		}
		next := -1
		for j, candidate := range g.nodes[i].Inputs {
			holds := candidate.Name == "value" || candidate.Name == "int" || candidate.Name == "number" || isSeedName(candidate.Name)
			if holds && (candidate.Link != nil || isInteger(candidate.Value)) {
				if next >= 0 {
					return p, false // two numbers: it computes something
				}
				next = j
			}
		}
		if next < 0 {
			return p, false
		}
		p = place{i, next}
	}
	return p, false
}

// isInteger reports whether a value is a whole number, or a text of digits.
func isInteger(raw json.RawMessage) bool {
	s := strings.TrimPrefix(plain(raw), "-")
	if s == "" || kindOf(raw) != 'n' && kindOf(raw) != 's' {
		return false
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// Randomize draws a new seed for each of FindSeeds and lists those it changed.
func Randomize(doc *Doc, random *rand.Rand) ([]Ref, error) {
	return RandomizeFor(doc, nil, random)
}

// RandomizeFor is Randomize within what the server's nodes take; info may be
// nil. Without it, some packs' 32-bit seeds may get a number that is too large.
func RandomizeFor(doc *Doc, info *ObjectInfo, random *rand.Rand) ([]Ref, error) {
	places := doc.Graph.seeds()
	refs := make([]Ref, len(places))
	limits := make(map[int]uint64, len(places))
	for i, p := range places {
		refs[i] = doc.Graph.ref(p)
		limits[doc.Graph.at(p).start] = info.seedLimit(refs[i])
	}
	err := replace(doc, places, func(in Input) (string, error) {
		fresh := strconv.FormatUint(random.Uint64N(limits[in.start]+1), 10)
		if kindOf(in.Value) == 's' {
			fresh = quote(fresh)
		}
		return fresh, nil
	})
	if err != nil {
		return nil, err
	}
	return refs, nil
}

// seedLimit is the largest seed to draw for an input.
func (info *ObjectInfo) seedLimit(r Ref) uint64 {
	if info == nil {
		return maxSeed
	}
	class := info.Class(r.Class)
	if class == nil {
		return maxSeed
	}
	spec, ok := class.Input(r.Input)
	if !ok || spec.Max == "" {
		return maxSeed
	}
	limit, err := strconv.ParseUint(spec.Max.String(), 10, 64)
	if err != nil {
		return maxSeed
	}
	return min(limit, maxSeed)
}
