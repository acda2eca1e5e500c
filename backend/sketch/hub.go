package sketch

import (
	"bytes"
	"context"
	"encoding/binary"
	"image"
	"image/jpeg"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
)

// socket is one open WebSocket.
type socket struct {
	conn *websocket.Conn
	// write is held while a message is written; the first holder is the
	// greeting, so that nothing comes before it.
	write sync.Mutex
}

// message waits to be sent: to one client, or to all when to is nil.
type message struct {
	kind websocket.MessageType
	data []byte
	to   *string
}

// hub holds the open sockets and sends messages one after the other, so that
// a client that does not read stops them for all, as in ComfyUI.
type hub struct {
	w *Worker

	mu       sync.Mutex // guards what follows
	socks    map[string]*socket
	flags    map[string]*object
	logs     map[string]bool // subscribers of the log; true: knows the size
	outbox   []message
	wake     chan struct{}
	client   *string // owner of the running prompt
	lastNode *string
}

func newHub(w *Worker) *hub {
	return &hub{w: w, socks: map[string]*socket{}, flags: map[string]*object{}, logs: map[string]bool{}, wake: make(chan struct{}, 1)}
}

func (h *hub) post(m message) {
	h.mu.Lock()
	h.outbox = append(h.outbox, m)
	h.mu.Unlock()
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// send queues a text message for one client, or for all when to is nil.
func (h *hub) send(event string, data *object, to *string) {
	h.post(message{websocket.MessageText, dumpJSON(obj("type", event, "data", data)), to})
}

// owned queues a message for the owner of the running prompt, if it has one.
func (h *hub) owned(event string, data *object) {
	if c := h.owner(); c != nil {
		h.send(event, data, c)
	}
}

func (h *hub) owner() *string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.client
}

func (h *hub) setOwner(client, node *string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.client, h.lastNode = client, node
}

func (h *hub) setNode(node *string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lastNode = node
}

func statusData(remaining int) *object {
	return obj("status", obj("exec_info", obj("queue_remaining", int64(remaining))))
}

// run sends what is queued until ctx ends.
func (h *hub) run(ctx context.Context) {
	for {
		h.mu.Lock()
		box := h.outbox
		h.outbox = nil
		h.mu.Unlock()
		for _, m := range box {
			h.deliver(ctx, m)
		}
		if len(box) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
	}
}

func (h *hub) deliver(ctx context.Context, m message) {
	h.w.loop.RLock()
	defer h.w.loop.RUnlock()
	if h.w.faults.since("deaf-socket", h.w.prompts.Load()) {
		return
	}
	var to []*socket
	h.mu.Lock()
	if m.to == nil {
		for _, s := range h.socks {
			to = append(to, s)
		}
	} else if s := h.socks[*m.to]; s != nil {
		to = append(to, s)
	}
	h.mu.Unlock()
	for _, s := range to {
		s.write.Lock()
		if err := s.conn.Write(ctx, m.kind, m.data); err != nil && ctx.Err() == nil {
			h.w.log.warn("send error: %v", err)
		}
		s.write.Unlock()
	}
}

// closeAll drops every connection without a closing frame, as the end of the
// process would.
func (h *hub) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.socks {
		_ = s.conn.CloseNow()
	}
}

// serve is GET /ws.
func (h *hub) serve(rw http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(rw, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow() //nolint:errcheck // nothing is left to do
	conn.SetReadLimit(4 << 20)
	sid := r.URL.Query().Get("clientId")
	if sid == "" {
		id := uuid.New()
		sid = hexID(id)
	}
	s := &socket{conn: conn}
	s.write.Lock()
	h.mu.Lock()
	h.socks[sid], h.flags[sid] = s, newObject()
	greet := [][]byte{}
	status := statusData(h.w.queue.count())
	status.set("sid", sid)
	greet = append(greet, dumpJSON(obj("type", "status", "data", status)))
	if h.client != nil && *h.client == sid && h.lastNode != nil {
		greet = append(greet, dumpJSON(obj("type", "executing", "data", obj("node", *h.lastNode))))
	}
	h.mu.Unlock()
	// The end of any handler takes the id away, even from a newer socket
	// that has it by now: ComfyUI does so, and clients must cope.
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.socks, sid)
		delete(h.flags, sid)
	}()
	ctx := r.Context()
	for _, g := range greet {
		if !h.w.faults.since("deaf-socket", h.w.prompts.Load()) {
			_ = conn.Write(ctx, websocket.MessageText, g)
		}
	}
	s.write.Unlock()
	h.read(ctx, conn, sid)
}

func hexID(id uuid.UUID) string {
	b := make([]byte, 0, 32)
	for _, c := range id.String() {
		if c != '-' {
			b = append(b, byte(c))
		}
	}
	return string(b)
}

// read takes the client's messages. Only feature flags mean anything, and only
// in the first message that is JSON.
func (h *hub) read(ctx context.Context, conn *websocket.Conn, sid string) {
	first := true
	for {
		kind, b, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if kind != websocket.MessageText {
			continue
		}
		v, err := parseJSON(b)
		if err != nil {
			h.w.log.warn("Invalid JSON received from client %s: %s", sid, b)
			continue
		}
		o, isObject := v.(*object)
		if !isObject && first {
			h.w.log.error("Error processing WebSocket message: '%s' object has no attribute 'get'", pyType(v))
			continue
		}
		if first && o.at("type") == "feature_flags" {
			f, _ := o.at("data").(*object)
			h.mu.Lock()
			h.flags[sid] = f
			h.mu.Unlock()
			h.send("feature_flags", h.w.features(), &sid)
		}
		first = false
	}
}

// wantsMetadata says whether the owner asked for previews with metadata.
func (h *hub) wantsMetadata() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.client != nil && h.flags[*h.client].at("supports_preview_metadata") == true
}

// preview queues a picture as binary message 1 (plain) or 4 (with metadata).
func (h *hub) preview(img image.Image, meta *object) {
	var b bytes.Buffer
	word := func(n int) { _ = binary.Write(&b, binary.BigEndian, uint32(n)) }
	if meta == nil {
		word(1)
		word(1) // JPEG
	} else {
		meta.set("image_type", "image/jpeg")
		m := dumpJSON(meta)
		word(4)
		word(len(m))
		b.Write(m)
	}
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 90}); err != nil {
		h.w.log.warn("preview not sent: %v", err)
		return
	}
	h.post(message{websocket.MessageBinary, b.Bytes(), h.owner()})
}

// subscribe turns the log on or off for a client.
func (h *hub) subscribe(id string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.logs, id)
	if on {
		h.logs[id] = false
	}
}

// logged passes a log entry to those who subscribed.
func (h *hub) logged(entry *object) {
	h.mu.Lock()
	var to []string
	sizes := map[string]any{}
	for id, knows := range h.logs {
		if h.socks[id] == nil {
			delete(h.logs, id)
			continue
		}
		to = append(to, id)
		if !knows {
			sizes[id] = terminalSize()
			h.logs[id] = true
		}
	}
	h.mu.Unlock()
	for _, id := range to {
		h.send("logs", obj("entries", []any{entry}, "size", sizes[id]), &id)
	}
}

func terminalSize() *object { return obj("cols", int64(80), "rows", int64(24)) }

func nowMillis() int64 { return time.Now().UnixMilli() }
