// Package cards watches this box's graphics cards: which source can read them, who
// holds their memory, and what they did in the last ten minutes. It never reads a
// driver itself: that is done by a child process (package gpu/child), so that a
// driver that hangs costs the figures and nothing else.
//
// Sources are tried in order: NVML, nvidia-smi, amdgpu's files, what ComfyUI said
// when it became ready, none. One that fails is tried again later, less and less
// often; one that is not on this box is looked for again only when a worker becomes
// ready, so that a box without a card pays nothing.
package cards
