package tui

import (
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"

	"easel/tui/text"
)

// Every scene is drawn in Chinese at the three sizes, after a change of language
// while the console runs: no line is wider than the window, and the doors are
// named in Chinese.
func TestFramesInChinese(t *testing.T) {
	t.Cleanup(func() { _ = text.Use(text.English) })
	for _, sc := range scenes {
		for _, sz := range sizes {
			inBubble(t, sz.w, sz.h, func(d *drive, _ *fake) {
				d.m.speak(text.Chinese)
				sc.do(d)
				f := d.frame()
				checkFrame(t, f, sz.w, sz.h)
				if !strings.Contains(ansi.Strip(f), "首页") {
					t.Errorf("%s at %d×%d: the frame is not in Chinese", sc.name, sz.w, sz.h)
				}
			})
			if err := text.Use(text.English); err != nil {
				t.Fatal(err)
			}
		}
	}
}
