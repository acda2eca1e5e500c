package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode"

	"github.com/pelletier/go-toml/v2"
)

// assign puts a value as TOML gave it into a field, or says what was expected.
func assign(field reflect.Value, v any) error {
	switch field.Interface().(type) {
	case string:
		s, ok := v.(string)
		if !ok {
			return mismatch("text in quotes", v)
		}
		field.SetString(s)
	case bool:
		b, ok := v.(bool)
		if !ok {
			return mismatch("true or false, without quotes", v)
		}
		field.SetBool(b)
	case int:
		n, ok := v.(int64)
		if !ok || int64(int(n)) != n {
			return mismatch("a whole number, without quotes", v)
		}
		field.SetInt(n)
	case []string:
		return assignList(field, v, `a list of texts, like ["a", "b"]`)
	case []int:
		return assignList(field, v, "a list of numbers, like [0, 1]")
	case Duration:
		return assignText(field, v, `a duration in quotes, like "10m"`)
	case Size:
		if n, ok := v.(int64); ok && n >= 0 {
			field.SetInt(n)
			return nil
		}
		return assignText(field, v, `a size in quotes, like "96MiB"`)
	}
	return nil
}

// assignText fills a field that reads its own text.
func assignText(field reflect.Value, v any, expected string) error {
	s, ok := v.(string)
	if !ok {
		return mismatch(expected, v)
	}
	reader := field.Addr().Interface().(interface{ UnmarshalText([]byte) error })
	return reader.UnmarshalText([]byte(s))
}

// assignList fills a slice, element by element.
func assignList(field reflect.Value, v any, expected string) error {
	items, ok := v.([]any)
	if !ok {
		return mismatch(expected, v)
	}
	list := reflect.MakeSlice(field.Type(), len(items), len(items))
	for i, item := range items {
		if err := assign(list.Index(i), item); err != nil {
			return mismatch(expected, v)
		}
	}
	field.Set(list)
	return nil
}

func mismatch(expected string, v any) error {
	return fmt.Errorf("expected %s, not %s", expected, describe(v))
}

// describe names a TOML value in a few words.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + quote(clip(v, 40))
	case bool:
		return strconv.FormatBool(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a section"
	case nil:
		return "nothing"
	}
	return "a date"
}

// assignString reads a value from an environment variable or a command line: as
// TOML where the type is not text, a list also as words between commas.
func assignString(field reflect.Value, s string) error {
	switch field.Interface().(type) {
	case string:
		field.SetString(s)
		return nil
	case Duration, Size:
		return assignText(field, strings.TrimSpace(s), "")
	case bool:
		switch strings.ToLower(strings.TrimSpace(s)) {
		case "true", "yes", "on", "1":
			field.SetBool(true)
		case "false", "no", "off", "0":
			field.SetBool(false)
		default:
			return mismatch("true or false", s)
		}
		return nil
	case int:
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil {
			return mismatch("a whole number", s)
		}
		field.SetInt(int64(n))
		return nil
	}
	return assignWords(field, s)
}

// assignWords fills a slice from "[...]" in TOML, or from words between commas.
func assignWords(field reflect.Value, s string) error {
	s = strings.TrimSpace(s)
	if strings.HasPrefix(s, "[") {
		var doc map[string]any
		if err := toml.Unmarshal([]byte("v = "+s), &doc); err != nil || len(doc) != 1 {
			return fmt.Errorf("%s is not a list in TOML", quote(clip(s, 60)))
		}
		return assign(field, doc["v"])
	}
	items := []any{}
	for word := range strings.SplitSeq(s, ",") {
		word = strings.TrimSpace(word)
		if word == "" {
			continue
		}
		if field.Type().Elem().Kind() != reflect.Int {
			items = append(items, word)
			continue
		}
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return mismatch("numbers with commas between them", s)
		}
		items = append(items, n)
	}
	return assign(field, items)
}

// literal writes a value as TOML.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return quote(v)
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case Duration:
		return quote(v.String())
	case Size:
		return quote(v.String())
	}
	list := reflect.ValueOf(v)
	items := make([]string, list.Len())
	for i := range items {
		items[i] = literal(list.Index(i).Interface())
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// quote writes s as a TOML basic string on one line. Control characters, and
// those that would change how a terminal shows the line, are escaped; bytes
// that are not UTF-8 become U+FFFD.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == ' ' || unicode.IsGraphic(r) && !unicode.Is(unicode.Zs, r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// clip cuts s to n characters.
func clip(s string, n int) string {
	for i := range s {
		if n == 0 {
			return s[:i] + "…"
		}
		n--
	}
	return s
}
