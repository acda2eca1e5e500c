package tui

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"easel/backend"
	"easel/tui/gallery"
	"easel/tui/keys"
	"easel/tui/live"
	"easel/tui/picture"
	"easel/tui/screen"
	"easel/tui/text"
	"easel/tui/theme"
	"easel/tui/widget"
	"easel/views/act"
	"easel/views/home"
	"easel/views/logs"
	"easel/views/queue"
)

// The smallest terminal that is drawn in.
const (
	minWidth  = 60
	minHeight = 15
)

// Times of the shell.
const (
	askAfter  = 60 * time.Millisecond // after the first size, so that a frame is out
	toastTime = 4 * time.Second
	badTime   = 9 * time.Second
	deafTime  = 400 * time.Millisecond // a dialog that opens by itself ignores keys
	flapTime  = time.Second            // a lost engine becomes a banner after this
)

// door is a screen and its digit; a nil view is one that is not built yet.
type door struct {
	id    screen.ID
	name  string
	view  screen.Screen
	until string // what does the same until the screen is built
	key   key.Binding
}

// Model is the root: it owns the size, the screens, dialogs and the status line.
type Model struct {
	env    *screen.Env
	svc    Service
	opts   Options
	acts   *act.Jobs
	doors  []door
	at     int // index of the screen in front
	over   overlay
	toast  toast
	cmds   []tea.Cmd // gathered while a message is handled
	w, h   int
	asked  bool // the terminal was asked what it can do
	ours   bool // this console started the engine
	leave  string
	ending bool // the engine is being stopped, then the console leaves

	banners []banner
	dirty   bool
	drawn   string
}

// toast is a short remark in the status line.
type toast struct {
	tone  screen.Tone
	text  string
	until time.Time
}

// tickMsg is the clock, once a second.
type tickMsg struct{}

// askMsg is the moment to ask the terminal what it can do.
type askMsg struct{}

// stoppedMsg answers the stop on leaving.
type stoppedMsg struct{ err error }

// New makes the console. It does nothing until the program runs it; ctx ends its
// calls to the engine.
func New(ctx context.Context, svc Service, o Options) *Model {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Loc == nil {
		o.Loc = time.Local
	}
	now := o.Now()
	m := &Model{svc: svc, opts: o, leave: o.Leave, dirty: true}
	m.env = &screen.Env{
		Ctx: ctx, Theme: theme.New(true), Keys: keys.New(), State: live.New(widget.Clean(o.Box), now),
		Pics: gallery.New(ctx, picture.NewCaps(o.Environ)), Shell: shell{m}, Now: now, Loc: o.Loc,
	}
	m.acts = act.New(m.env, svc, o.Load)
	m.doors = m.makeDoors()
	m.resize()
	m.cmds = nil
	return m
}

func (m *Model) makeDoors() []door {
	t := text.T
	ds := []door{
		{id: screen.Home, name: t("home"), view: home.New(m.env, m.svc, m.acts)},
		{id: screen.Queue, name: t("queue"), view: queue.New(m.env, m.svc, m.acts)},
		{id: screen.Workflows, name: t("workflows"), until: t("it comes with `easel workflows`; until then: easel run FILE, or a")},
		{id: screen.Models, name: t("models"), until: t("it comes with `easel models`")},
		{id: screen.Nodes, name: t("nodes"), until: t("it comes with `easel nodes`; the log (7) shows how the packs were imported")},
		{id: screen.Outputs, name: t("outputs"), until: t("it comes later; until then: easel outputs ls, and enter on a finished job")},
		{id: screen.Logs, name: t("logs"), view: logs.New(m.env, m.svc)},
		{id: screen.Requests, name: t("requests"), until: t("it comes with the gateway")},
		{id: screen.Settings, name: t("settings"), until: t("it comes later; until then: easel config show, easel config set")},
	}
	for i := range ds {
		d := strconv.Itoa(i + 1)
		ds[i].key = key.NewBinding(key.WithKeys(d, "alt+"+d), key.WithHelp(d, ds[i].name))
	}
	return ds
}

// Init asks for the terminal's background and starts the clock.
func (m *Model) Init() tea.Cmd {
	return tea.Batch(tea.RequestBackgroundColor, tick(), m.front().Show())
}

func tick() tea.Cmd {
	return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg{} })
}

// front is the screen in front.
func (m *Model) front() screen.Screen { return m.doors[m.at].view }

// do gathers a command for the end of Update.
func (m *Model) do(c tea.Cmd) {
	if c != nil {
		m.cmds = append(m.cmds, c)
	}
}

// Update takes one message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.env.Now = m.opts.Now()
	m.dirty = true
	m.handle(msg)
	m.layout()
	cmds := m.cmds
	m.cmds = nil
	return m, tea.Batch(cmds...)
}

func (m *Model) handle(msg tea.Msg) {
	switch msg := msg.(type) {
	case tickMsg:
		m.onTick()
	case framesMsg:
		m.onFrames(msg.frames)
	case tea.KeyPressMsg:
		m.env.Rev++
		m.onKey(msg)
	case tea.PasteMsg:
		m.env.Rev++
		m.onPaste(msg.Content)
	case tea.WindowSizeMsg:
		m.onSize(msg)
	case tea.BackgroundColorMsg:
		m.env.Theme = theme.New(msg.IsDark())
		m.env.Rev++
	case askMsg:
		if q := m.env.Pics.Query(); q != "" {
			m.do(tea.Raw(q))
		}
	case tea.ResumeMsg:
		m.do(m.env.Pics.Again())
	case screen.SaidMsg:
		m.onSaid(msg)
	case linkMsg:
		m.onLink(msg)
	case startMsg:
		m.onStart(msg)
	case stoppedMsg:
		m.onStopped(msg)
	case completedMsg:
		m.onCompleted(msg)
	case tea.MouseMsg:
		m.env.Rev++
		m.onMouse(msg)
	default:
		m.onOther(msg)
	}
}

// onOther offers a message to the gallery and the screens: answers of their
// commands, and what the terminal says of itself.
func (m *Model) onOther(msg tea.Msg) {
	if cmd, ok := m.env.Pics.Update(msg); ok {
		m.do(cmd)
		return
	}
	if cmd := m.env.Pics.Answer(msg); cmd != nil {
		m.do(cmd)
	}
	m.tell(msg)
}

// tell hands a message to every screen.
func (m *Model) tell(msg tea.Msg) {
	for _, d := range m.doors {
		if d.view != nil {
			m.do(d.view.Update(msg))
		}
	}
}

func (m *Model) onTick() {
	if m.toast.text != "" && m.env.Now.After(m.toast.until) {
		m.toast = toast{}
	}
	m.do(tick())
}

func (m *Model) onSize(msg tea.WindowSizeMsg) {
	m.w, m.h = msg.Width, msg.Height
	m.env.Rev++
	m.do(m.env.Pics.Answer(msg))
	m.resize()
	if !m.asked {
		m.asked = true
		m.do(tea.Tick(askAfter, func(time.Time) tea.Msg { return askMsg{} }))
	}
}

// size is the window's, or the usual one while it is not known.
func (m *Model) size() (w, h int) {
	if m.w == 0 || m.h == 0 {
		return 80, 24
	}
	return m.w, m.h
}

// resize gives every screen what is left of the window.
func (m *Model) resize() {
	w, h := m.size()
	w, h = max(w, minWidth), max(h, minHeight)
	for _, d := range m.doors {
		if d.view != nil {
			m.do(d.view.SetSize(w, h-3-len(m.banners)))
		}
	}
}

// layout looks whether the banners have changed.
func (m *Model) layout() {
	now := m.makeBanners()
	changed := len(now) != len(m.banners)
	m.banners = now
	if changed {
		m.resize()
	}
}

// onFrames applies what the engine told and says what a person waits to hear.
func (m *Model) onFrames(frames []backend.Frame) {
	s := m.env.State
	death := newest(s.Deaths)
	for _, f := range frames {
		s.Apply(f, m.env.Now)
		if f.Kind == backend.FrameSnapshot {
			s.SetLink(live.Connected, "", "", "", m.env.Now)
			death = newest(s.Deaths)
		}
		if f.Kind == backend.FrameEvent && f.Event != nil && f.Event.Kind == backend.EventState && f.Event.Job != nil {
			m.sayEnd(*f.Event.Job)
		}
	}
	if d := newest(s.Deaths); d != death && len(s.Deaths) > 0 {
		m.say(screen.Warn, text.T("the worker ended: %s", text.Said(widget.Clean(s.Deaths[0].Summary))))
	}
	m.tell(changedMsg{})
}

// changedMsg tells the screens that the State has changed.
type changedMsg struct{}

func newest(ds []backend.Verdict) string {
	if len(ds) == 0 {
		return ""
	}
	return ds[0].Launch + ds[0].At.String()
}

// sayEnd says that a job has ended.
func (m *Model) sayEnd(j backend.Job) {
	switch j.State {
	case backend.JobSucceeded:
		m.say(screen.Good, text.T("%s is done  %s", act.Name(j), act.Took(j)))
	case backend.JobFailed:
		m.say(screen.Bad, text.T("%s failed: %s", act.Name(j), act.Result(j)))
	}
}

func (m *Model) say(tone screen.Tone, s string) {
	d := toastTime
	if tone == screen.Bad {
		d = badTime
	}
	m.toast = toast{tone: tone, text: s, until: m.env.Now.Add(d)}
}

func (m *Model) onSaid(msg screen.SaidMsg) {
	if msg.Err == nil {
		m.say(msg.Tone, msg.Text)
		return
	}
	f := backend.FailureOf(msg.Err)
	s := text.Said(widget.Clean(f.Message))
	for i, p := range f.Problems {
		if i == 2 {
			s += text.T(" · and %d more", len(f.Problems)-2)
			break
		}
		s += " · " + text.Said(widget.Clean(p.Message))
	}
	if f.Hint != "" {
		s += " → " + text.Said(widget.Clean(f.Hint))
	}
	m.say(screen.Bad, s)
	if widget.Width(s) > m.w-30 || len(f.Problems) > 1 {
		m.explain(f)
	}
}

// explain opens a dialog for an error that is longer than the status line.
func (m *Model) explain(f *backend.Failure) {
	body := []string{text.Said(widget.Clean(f.Message))}
	for i, p := range f.Problems {
		if i == 8 {
			body = append(body, text.T("… and %d more", len(f.Problems)-8))
			break
		}
		line := text.Said(widget.Clean(p.Message))
		if p.Node != "" {
			line = text.T("node %s", widget.Clean(p.Node)) + ": " + line
		}
		if p.Fix != "" {
			line += " → " + text.Said(widget.Clean(p.Fix))
		}
		body = append(body, "· "+line)
	}
	if f.Hint != "" {
		body = append(body, "→ "+text.Said(widget.Clean(f.Hint)))
	}
	m.ask(screen.Dialog{
		Title: text.T("That did not work"), Tone: screen.Bad, Body: body, Own: true,
		Choices: []screen.Choice{{Label: text.T("close"), Default: true}},
	})
}

func (m *Model) onLink(msg linkMsg) {
	s := m.env.State
	switch {
	case msg.connected && s.Have:
		s.SetLink(live.Connected, "", "", "", m.env.Now)
	case msg.connected:
		s.SetLink(s.Link, text.T("the engine answers …"), "", "", m.env.Now)
	case s.Link == live.Stopping && m.ending:
	default:
		why, hint := "", ""
		if msg.err != nil {
			f := backend.FailureOf(msg.err)
			why, hint = text.Said(widget.Clean(f.Message)), text.Said(widget.Clean(f.Hint))
		}
		link := live.Lost
		if !s.Have {
			link = live.Looking
		}
		s.SetLink(link, text.T("trying to reach the engine of %s …", s.Box), why, hint, m.env.Now)
	}
}

func (m *Model) onStart(msg startMsg) {
	s := m.env.State
	switch {
	case msg.err != nil:
		f := backend.FailureOf(msg.err)
		s.SetLink(live.Down, text.T("the engine does not start"), text.Said(widget.Clean(f.Message)), cleanLines(f.Hint), m.env.Now)
	case msg.note != "":
		s.SetLink(live.Looking, widget.Clean(msg.note), "", "", m.env.Now)
	default:
		m.ours = m.ours || msg.started
		if s.Link != live.Connected {
			s.SetLink(live.Looking, text.T("the engine answers …"), "", "", m.env.Now)
		}
	}
}

// cleanLines is text of several lines, each made fit to be shown.
func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = widget.Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

func (m *Model) onStopped(msg stoppedMsg) {
	if msg.err != nil {
		m.ending = false
		m.onSaid(screen.SaidMsg{Err: fmt.Errorf("%s: %w", text.T("the engine was not stopped"), msg.err)})
		return
	}
	m.quit()
}

// quit frees the pictures and ends the program.
func (m *Model) quit() {
	if free := m.env.Pics.Free(); free != "" {
		m.do(tea.Sequence(tea.Raw(free), tea.Quit))
		return
	}
	m.do(tea.Quit)
}

func (m *Model) onMouse(msg tea.MouseMsg) {
	if m.over != nil || m.tooSmall() {
		return
	}
	y := msg.Mouse().Y - 1 - len(m.banners)
	switch msg := msg.(type) {
	case tea.MouseClickMsg:
		msg.Y = y
		m.do(m.front().Update(msg))
	case tea.MouseWheelMsg:
		msg.Y = y
		m.do(m.front().Update(msg))
	}
}

func (m *Model) onPaste(s string) {
	switch {
	case m.over != nil:
		m.over.paste(m, s)
	case m.front().Typing():
		m.do(m.front().Paste(s))
	default:
		if p := act.Path(s); p != "" {
			m.do(m.acts.Add(p))
			return
		}
		m.say(screen.Info, text.T("what was pasted is no path of a workflow (.json or .png)"))
	}
}

func (m *Model) tooSmall() bool { return m.w > 0 && (m.w < minWidth || m.h < minHeight) }

// shell is what the screens may ask of the root.
type shell struct{ m *Model }

// Ask opens a dialog.
func (s shell) Ask(d screen.Dialog) { s.m.ask(d) }

// Prompt opens a line of input.
func (s shell) Prompt(p screen.Prompt) { s.m.prompt(p) }

// Toast says something in the status line.
func (s shell) Toast(tone screen.Tone, t string) { s.m.say(tone, t) }

// Go switches to a screen.
func (s shell) Go(id screen.ID) tea.Cmd {
	for i, d := range s.m.doors {
		if d.id == id {
			s.m.goTo(i)
		}
	}
	return nil
}
