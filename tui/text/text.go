// Package text is the one door through which every sentence that a person reads
// passes. Strings are written in English where they are used and looked up here,
// as gettext does, so that the code stays readable and another language is one
// file (assets/locales). What the engine says comes over the wire as finished
// English sentences; Said finds the format they were made from and translates
// them as well. It knows nothing of terminals.
package text

import (
	"fmt"
	"sync/atomic"
)

// current is the catalogue in use, nil for English.
var current atomic.Pointer[catalogue]

// Use chooses the language: "en", or one of Languages. Safe while the console
// runs; what is drawn next uses it. English costs nothing, another language
// reads its file once.
func Use(lang string) error {
	if lang == "" || lang == English {
		current.Store(nil)
		return nil
	}
	c, err := load(lang)
	if err != nil {
		return err
	}
	current.Store(c)
	return nil
}

// Language is the language in use.
func Language() string {
	if c := current.Load(); c != nil {
		return c.lang
	}
	return English
}

// T is the string en in the language in use, with args put in as fmt.Sprintf
// does. A string without a translation stays English.
func T(en string, args ...any) string {
	s := en
	if c := current.Load(); c != nil {
		if tr, ok := c.words[en]; ok {
			s = tr
		}
	}
	if len(args) == 0 {
		return s
	}
	return fmt.Sprintf(s, args...)
}

// N is T with one form for a count of 1 and another for every other count; n is
// the first argument of both. That is the rule of English. Chinese has no
// plural: there the second form counts for every n, unless the first has a
// translation of its own.
func N(n int, one, many string, args ...any) string {
	form := many
	if n == 1 {
		form = one
		if c := current.Load(); c != nil && !c.has(one) && c.has(many) {
			form = many
		}
	}
	return T(form, append([]any{n}, args...)...)
}

// Said is what the engine said, a finished English sentence, in the language in
// use. A sentence that no entry of the catalogue makes is returned as it is, or
// with those of its parts translated that are known.
func Said(s string) string {
	c := current.Load()
	if c == nil || s == "" {
		return s
	}
	return c.said(s)
}
