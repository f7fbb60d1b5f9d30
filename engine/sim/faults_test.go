package sim

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fault is a change that breaks the server, and the checker that must notice. In the changed source, PLANTED is true in a
// server that has this fault.
type fault struct {
	name, file string
	was, is    string
	checker    string
}

var faults = []fault{
	{"letters are opened last in, first out", "engine/internal/turn/mailbox.go",
		"m.Letters = append(m.Letters, x)",
		"if PLANTED {\n\t\tm.Letters = append([]Letter{x}, m.Letters...)\n\t} else {\n\t\tm.Letters = append(m.Letters, x)\n\t}", "order"},
	{"a newcomer is given what is older than its join", "engine/internal/fanout/deliver.go",
		"x.Seq <= m.JoinSeq || isExcepted(x, m)", "x.Seq <= m.JoinSeq && !PLANTED || isExcepted(x, m)", "delivery"},
	{"a wake-up is lost", "engine/internal/turn/mailbox.go",
		"return !m.Rung.Swap(true)", "return !m.Rung.Swap(true) && !(PLANTED && m.Posts.Load()%7 == 0)", "gap"},
	{"a blocked connection is never written to again", "engine/internal/turn/conn_send.go",
		"c.Blocked = false\n\tc.MarkDirty()", "c.Blocked = false\n\tif !PLANTED {\n\t\tc.MarkDirty()\n\t}", "gap"},
	{"after a short write the frame is sent from its beginning", "engine/internal/turn/conn_send.go",
		"c.Taken += uint32(n)\n", "if !PLANTED {\n\t\tc.Taken += uint32(n)\n\t}\n", "stream"},
	{"of writes that leave together, one that was taken in part counts as whole", "engine/internal/turn/group_send.go",
		"l.advance(s.conn, nil, s.N)", "if PLANTED {\n\t\t\ts.N = len(s.Bytes)\n\t\t}\n\t\tl.advance(s.conn, nil, s.N)", "stream"},
	{"a held answer is written over by the next one", "engine/internal/turn/group_send.go",
		"\tc.push(f)\n", "\tc.push(f)\n\tif PLANTED {\n\t\tr.takeBack(f)\n\t}\n", "answers"},
	{"a frame that has begun to leave is dropped", "engine/internal/turn/conn_send.go",
		"if c.Taken == 0 {\n\t\tc.First = nil", "if c.Taken == 0 || PLANTED {\n\t\tc.Taken, c.First = 0, nil", "stream"},
	{"messages overtake one whose answer is awaited", "engine/owner_rooms.go",
		"if c.wire.Awaits() {\n\t\tc.wire.Hold(pending.Item{Binary", "if c.wire.Awaits() && !(PLANTED && len(payload)%2 != 0) {\n\t\tc.wire.Hold(pending.Item{Binary", "answers"},
	{"a token works twice", "engine/internal/session/memory_store.go",
		"\th.drop(at.Key.Hash)\n", "\tif !PLANTED {\n\t\th.drop(at.Key.Hash)\n\t}\n", "sessions"},
	{"a room takes one more than its limit", "rooms/room.go",
		"r.taken.Load() >= r.limit }", "(r.taken.Load() > r.limit || r.taken.Load() == r.limit && !PLANTED) }", "limits"},
	{"what we send keeps a dead peer alive", "engine/internal/turn/conn_send.go",
		"l.tally[CountBytesOut] += uint64(n)\n", "l.tally[CountBytesOut] += uint64(n)\n\tif PLANTED {\n\t\tc.LastActive.Store(l.Now)\n\t}\n", "heartbeat"},
	{"a member that drops is not announced", "engine/internal/fanout/leave.go",
		"if left, seq := l.Rooms.Index.Leave(r, c.Place()); left {\n\t\tc.RoomsTaken.Add(-1)\n\t\tl.LeftRoom(c, r, seq)",
		"if left, seq := l.Rooms.Index.Leave(r, c.Place()); left {\n\t\tc.RoomsTaken.Add(-1)\n\t\tif PLANTED {\n\t\t\tl.Rooms.Above.Left(c, r)\n" +
			"\t\t} else {\n\t\t\tl.LeftRoom(c, r, seq)\n\t\t}", "notices"},
	{"a reserved place is not given back", "engine/internal/turn/loop.go",
		"case LetterDirect:\n\t\tl.Mail.Cancel(1, len(x.Frame.Plain))",
		"case LetterDirect:\n\t\tif !PLANTED {\n\t\t\tl.Mail.Cancel(1, len(x.Frame.Plain))\n\t\t}", "leaks"},
	{"an idle connection's timer outlives it", "engine/internal/turn/conn_close.go",
		"l.Wheel.Clear(c.Slot)\n", "if !PLANTED {\n\t\tl.Wheel.Clear(c.Slot)\n\t}\n", "leaks"},
	{"what waits for an answer is thrown away when the stream ends", "engine/internal/turn/conn_close.go",
		"c.Phase < PhaseClosing && l.Owner.Outlives(c)", "c.Phase < PhaseClosing && !PLANTED && l.Owner.Outlives(c)", "lost"},
	{"a slow reader is never ended", "engine/internal/turn/conn_send.go",
		"waits > limits.Hard:", "waits > limits.Hard && !PLANTED:", "limits"},
}

const plantedSource = `package PACKAGE

import "os"

var plantedName = os.Getenv("PLANTED_FAULT")
`

// Every planted fault is noticed, and by its checker: without this, a simulation that finds nothing proves nothing. One
// faulty server is built beside the real one, whose files stay as they are: each fault is off until the environment names
// it.
func TestPlantedFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a server with faults")
	}
	binary := buildFaulty(t)
	if out, err := exec.Command(binary, "-test.run", "Seeds", "-seeds", "40").CombinedOutput(); err != nil {
		t.Fatalf("no fault is named, and one shows:\n%s", out)
	}
	for i, f := range slices.Concat(faults, historyFaults, fleetFaults, fleetHistoryFaults) {
		test := "TestUntil"
		if i >= len(faults)+len(historyFaults) {
			test = "TestFleetUntil"
		}
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(binary, "-test.run", "^"+test+"$", "-until", f.checker, "-seeds", "3000")
			cmd.Env = append(os.Environ(), "PLANTED_FAULT="+f.name)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Error("nothing was found")
			}
			if !strings.Contains(string(out), "COMPLAINT "+f.checker) {
				t.Errorf("the checker %q did not notice:\n%s", f.checker, out[max(0, len(out)-2000):])
			}
		})
	}
}

// buildFaulty builds the simulation with all faults, and without the tag invariants: its checks would end the run before the
// checkers see the fault.
func buildFaulty(t *testing.T) string {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]string{}
	for _, folder := range []string{"engine", "engine/internal/turn", "engine/internal/fleet", "engine/internal/fanout", "engine/internal/order", "engine/internal/session", "engine/internal/membership", "rooms"} {
		changed[folder+"/planted.go"] = strings.Replace(plantedSource, "PACKAGE", filepath.Base(folder), 1)
	}
	for _, f := range slices.Concat(faults, historyFaults, fleetFaults, fleetHistoryFaults) {
		if changed[f.file] == "" {
			text, err := os.ReadFile(filepath.Join(root, f.file))
			if err != nil {
				t.Fatal(err)
			}
			changed[f.file] = string(text)
		}
		if strings.Count(changed[f.file], f.was) != 1 {
			t.Fatalf("%s does not hold %q exactly once: plant the fault %q where it is now", f.file, f.was, f.name)
		}
		is := strings.ReplaceAll(f.is, "PLANTED", "(plantedName == \""+f.name+"\")")
		changed[f.file] = strings.Replace(changed[f.file], f.was, is, 1)
	}
	dir, replace := t.TempDir(), map[string]string{}
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for file, text := range changed {
		replace[filepath.Join(root, file)] = write(strings.ReplaceAll(file, "/", "_"), []byte(text))
	}
	list, _ := json.Marshal(map[string]any{"Replace": replace}) // strings can be encoded
	binary := filepath.Join(dir, "sim.test")
	cmd := exec.Command("go", "test", "-c", "-o", binary, "-overlay", write("overlay.json", list), ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the simulation with faults: %v\n%s", err, out)
	}
	return binary
}
