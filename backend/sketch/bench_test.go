package sketch

import "testing"

// BenchmarkPrompts is the time of a small prompt from POST to the end, over
// HTTP and the WebSocket.
func BenchmarkPrompts(b *testing.B) {
	c := start(b)
	l := c.listen("c1", "")
	for i := 0; b.Loop(); i++ {
		c.submit(colour(i%0xffffff, "PreviewImage"))
		l.until(promptEnded)
	}
}

// BenchmarkPicture is the time of one picture of 768 by 768.
func BenchmarkPicture(b *testing.B) {
	for b.Loop() {
		paint("misty mountains", 3, 768, 768)
	}
}
