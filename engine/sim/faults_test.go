package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fault is a change that breaks the server, and the checker that must notice.
type fault struct {
	name, file string
	was, is    string
	checker    string
}

var faults = []fault{
	{"letters are opened last in, first out", "engine/mailbox.go",
		"m.letters = append(m.letters, x)", "m.letters = append([]letter{x}, m.letters...)", "order"},
	{"a newcomer is given what is older than its join", "engine/publish.go",
		"x.seq <= m.JoinSeq || x.excepts(m)", "x.excepts(m)", "delivery"},
	{"a wake-up is lost", "engine/mailbox.go",
		"return !m.rung.Swap(true)", "return !m.rung.Swap(true) && m.posts.Load()%7 != 0", "gap"},
	{"a blocked connection is never written to again", "engine/conn_send.go",
		"c.blocked = false\n\tl.soil(c)", "c.blocked = false", "gap"},
	{"after a short write the frame is sent from its beginning", "engine/conn_send.go",
		"c.taken += n\n", "", "stream"},
	{"a frame that has begun to leave is dropped", "engine/conn_send.go",
		"if c.taken == 0 {\n\t\tc.first = nil", "if true {\n\t\tc.taken, c.first = 0, nil", "stream"},
	{"messages overtake one whose answer is awaited", "engine/conn_recv.go",
		"if c.rare != nil && c.rare.pending != nil {", "if c.rare != nil && c.rare.pending != nil && len(payload)%2 == 0 {", "answers"},
	{"a token works twice", "engine/session.go",
		"\th.drop(key)\n\treturn claim{state: p}", "\treturn claim{state: p}", "sessions"},
	{"a room takes one more than its limit", "rooms/room.go",
		"r.taken.Load() >= r.limit", "r.taken.Load() > r.limit", "limits"},
	{"what we send keeps a dead peer alive", "engine/conn_send.go",
		"l.tally.bytesOut += uint64(n)\n", "l.tally.bytesOut += uint64(n)\n\tc.lastActive.Store(l.now)\n", "heartbeat"},
	{"a member that drops is not announced", "engine/departure.go",
		"if left, seq := l.srv.index.Leave(r, c.place()); left {\n\t\tc.seats.Add(-1)\n\t\tl.left(c, r, seq)", "if left, seq := l.srv.index.Leave(r, c.place()); left {\n\t\tc.seats.Add(-1)\n\t\tl.srv.emit(Event{Kind: EventRoomLeave, Conn: c, Room: r.Name()})\n\t\t\t_ = seq", "notices"},
	{"a reserved place is not given back", "engine/loop.go",
		"case letterDirect:\n\t\tl.mail.cancel(1, len(x.frame.plain))", "case letterDirect:", "leaks"},
	{"an idle connection's timer outlives it", "engine/conn_close.go",
		"l.wheel.clear(c.slot)\n", "", "leaks"},
	{"what waits for an answer is thrown away when the stream ends", "engine/conn_close.go",
		"c.phase < phaseClosing && l.outlives(c)", "false", "lost"},
	{"a slow reader is never ended", "engine/conn_send.go",
		"waits > cfg.BacklogHardBytes:", "waits > 1<<30:", "limits"},
}

// Every planted fault is noticed, and by the checker that it is for: a simulation that finds nothing proves
// nothing. The faulty server is built beside the real one, whose files stay as they are.
func TestPlantedFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the server once for each fault")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			out := playFaulty(t, root, f)
			if !strings.Contains(out, "COMPLAINT "+f.checker) {
				t.Errorf("the checker %q did not notice:\n%s", f.checker, out[max(0, len(out)-2000):])
			}
		})
	}
}

// playFaulty plays seeds on a server with a fault until something is found, and returns what was said.
func playFaulty(t *testing.T, root string, f fault) string {
	path := filepath.Join(root, f.file)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), f.was) != 1 {
		t.Fatalf("%s does not hold %q exactly once: plant the fault where it is now", f.file, f.was)
	}
	dir := t.TempDir()
	faulty, overlay := filepath.Join(dir, "faulty.go"), filepath.Join(dir, "overlay.json")
	list, _ := json.Marshal(map[string]any{"Replace": map[string]string{path: faulty}})
	for name, content := range map[string]string{faulty: strings.Replace(string(text), f.was, f.is, 1), overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-count=1", "-overlay", overlay, "-tags", "invariants", ".", "-run", "TestUntil", "-until", f.checker)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Error("nothing was found")
	}
	return string(out)
}
