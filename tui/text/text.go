// Package text is the one door through which every sentence that the console
// draws passes. Strings are written in English where they are used and looked up
// here, as gettext does, so that the code stays readable and another language is
// one table. It knows nothing of terminals.
package text

import (
	"fmt"
	"sync/atomic"
)

// table maps an English string to the same in the language in use.
type table map[string]string

var current atomic.Pointer[table]

// Use replaces the language: words maps English strings (formats included) to
// their translation; nil is English. Safe while the console runs; what is drawn
// next uses it.
func Use(words map[string]string) {
	if words == nil {
		current.Store(nil)
		return
	}
	t := table(words)
	current.Store(&t)
}

// T is the string en in the language in use, with args put in as fmt.Sprintf
// does. A string without a translation stays English.
func T(en string, args ...any) string {
	s := en
	if t := current.Load(); t != nil {
		if tr, ok := (*t)[en]; ok {
			s = tr
		}
	}
	if len(args) == 0 {
		return s
	}
	return fmt.Sprintf(s, args...)
}

// N is T with one form for a count of 1 and another for every other count; n is
// the first argument of both.
func N(n int, one, many string, args ...any) string {
	form := many
	if n == 1 {
		form = one
	}
	return T(form, append([]any{n}, args...)...)
}
