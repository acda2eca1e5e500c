package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"easel/backend"
	"easel/backend/comfy"
)

// categories are the directories below models/ of a mount (contract §2.1).
var categories = []string{
	"audio_encoders", "checkpoints", "classifiers", "clip", "clip_vision", "configs", "controlnet", "diffusers", "diffusion_models",
	"embeddings", "gligen", "hypernetworks", "latent_upscale_models", "loras", "model_patches", "photomaker", "style_models",
	"text_encoders", "unet", "upscale_models", "vae", "vae_approx",
}

// directories decides where ComfyUI reads and writes: the mount's directories when
// there is a mount, else the checkout's own, which are left as they are. The
// temporary directory is always this worker's, since a start empties it.
func (b *builder) directories() error {
	own := filepath.Join(b.spec.StateDir, "workers", b.spec.ID)
	data, err := b.mount()
	if err != nil {
		return err
	}
	if err := b.base(data); err != nil {
		return err
	}
	if !b.has("--temp-directory") && b.add("--temp-directory", own) {
		b.plan.MakeDirs = append(b.plan.MakeDirs, own)
	}
	b.userDir(own, data)
	b.cache()
	b.plan.Session = filepath.Join(own, "session")
	b.env.set("__COMFY_CLI_SESSION__", b.plan.Session)
	b.plan.MakeDirs = append(b.plan.MakeDirs, own)
	b.plan.Dirs = b.folders()
	return b.nodesDir(data)
}

// mount is the directory of worker.data or --data-dir, "" without one.
func (b *builder) mount() (string, error) {
	data := expandHome(b.spec.Data, b.spec.Environ)
	if b.cmd.Data != "" {
		if data != "" && filepath.Clean(data) != filepath.Clean(b.cmd.Data) {
			return "", backend.Fail(backend.FailUsage, fmt.Sprintf("worker.data is %s and worker.command says --data-dir %s", data, b.cmd.Data), "take one of them out")
		}
		data = b.cmd.Data
	}
	if data == "" {
		return "", nil
	}
	abs, err := filepath.Abs(data)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(abs)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", backend.Fail(backend.FailWorker, "the mount "+abs+" is not there", "mount it, or make the directory, or take worker.data out")
	case err != nil:
		return "", backend.Fail(backend.FailWorker, fmt.Sprintf("the mount %s cannot be used: %v", abs, rootCause(err)), "is it still mounted?")
	case !st.IsDir():
		return "", backend.Fail(backend.FailWorker, "the mount "+abs+" is no directory", "name a directory with worker.data")
	}
	b.plan.data, b.plan.mount = abs, st
	return abs, nil
}

// base points ComfyUI at the mount.
func (b *builder) base(data string) error {
	if data == "" {
		return nil
	}
	if b.has("--base-directory") {
		return backend.Fail(backend.FailUsage, "both --base-directory and a mount ("+data+") are set", "take --base-directory out of worker.args")
	}
	if !b.add("--base-directory", data) {
		return backend.Fail(backend.FailWorker, "this ComfyUI is too old for a mount: it has no --base-directory", "update ComfyUI, or take worker.data (--data-dir) out")
	}
	for _, name := range []string{"custom_nodes", "input", "output", "temp", "unet"} {
		b.plan.MakeDirs = append(b.plan.MakeDirs, filepath.Join(data, name))
	}
	for _, name := range categories {
		b.plan.MakeDirs = append(b.plan.MakeDirs, filepath.Join(data, "models", name))
	}
	if wheels, err := filepath.Glob(filepath.Join(data, "models", "whl", "*.whl")); err == nil && len(wheels) > 0 {
		b.note(fmt.Sprintf("%d wheels in %s are not installed by this version; by hand: %s -m pip install %s/*.whl",
			len(wheels), filepath.Dir(wheels[0]), b.plan.Python, filepath.Dir(wheels[0])))
	}
	return nil
}

// userDir gives the worker a user directory and a database of its own where two
// would meet: on a mount, and beside another worker of the same directories.
func (b *builder) userDir(own, data string) {
	user := ""
	switch {
	case b.has("--user-directory"):
		return
	case b.spec.Sibling:
		user = filepath.Join(own, "user")
	case data != "":
		user = filepath.Join(data, "user")
	default:
		return
	}
	if b.add("--user-directory", user) {
		b.plan.MakeDirs = append(b.plan.MakeDirs, user)
		if !b.has("--database-url") {
			b.add("--database-url", "sqlite:///"+filepath.Join(user, "comfyui.db"))
		}
	}
}

// cache puts the caches of the libraries under --cache-root.
func (b *builder) cache() {
	root := b.cmd.Cache
	if root == "" {
		return
	}
	own := environment{vars: b.cmd.Env}
	for name, dir := range map[string]string{
		"HF_HOME": "huggingface", "TORCH_HOME": "torch", "XDG_CACHE_HOME": "", "TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor",
	} {
		if own.get(name) == "" {
			b.env.set(name, filepath.Join(root, dir))
		}
	}
	b.plan.MakeDirs = append(b.plan.MakeDirs, root)
}

// folders are the directories as the finished arguments give them.
func (b *builder) folders() comfy.Dirs {
	base := b.plan.Checkout
	at := func(flag, fallback string) string {
		v, ok := b.value(flag)
		if !ok || v == "" {
			return fallback
		}
		if !filepath.IsAbs(v) { // relative to the directory it runs in
			v = filepath.Join(b.plan.Dir, v)
		}
		return filepath.Clean(v)
	}
	base = at("--base-directory", base)
	return comfy.Dirs{
		Output: at("--output-directory", filepath.Join(base, "output")),
		Input:  at("--input-directory", filepath.Join(base, "input")),
		Temp:   filepath.Join(at("--temp-directory", base), "temp"),
	}
}

// nodesDir refuses a checkout without custom_nodes, which ComfyUI would end upon.
func (b *builder) nodesDir(data string) error {
	base := b.plan.Checkout
	if v, ok := b.value("--base-directory"); ok && v != "" {
		base = v
	}
	dir := filepath.Join(base, "custom_nodes")
	if data != "" {
		return nil // it is made
	}
	if _, err := os.Stat(dir); err != nil {
		return backend.Fail(backend.FailWorker, "ComfyUI would not start: "+dir+" is missing", "mkdir "+dir)
	}
	return nil
}

// makeDirs makes the directories of a plan. A category that cannot be made, as on
// a read-only mount, is no obstacle; any other is.
func (p Plan) makeDirs() error {
	if p.mount != nil {
		if st, err := os.Stat(p.data); err != nil || !os.SameFile(st, p.mount) {
			return backend.Fail(backend.FailWorker, "the mount "+p.data+" is no longer what it was when the worker last started: unmounted?",
				"mount it again, then easel worker start")
		}
	}
	for _, dir := range p.MakeDirs {
		err := os.MkdirAll(dir, 0o755)
		if err == nil {
			continue
		}
		if st, serr := os.Stat(dir); serr == nil && st.IsDir() {
			continue
		}
		if filepath.Base(filepath.Dir(dir)) == "models" || filepath.Base(dir) == "unet" || filepath.Base(dir) == "temp" {
			continue
		}
		return backend.Fail(backend.FailDisk, fmt.Sprintf("directory %s cannot be made: %v", dir, rootCause(err)), "make it by hand, or choose another place")
	}
	return nil
}
