package verify

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// fault is a change that breaks the server, and kinds of findings, one of which must come up.
type fault struct {
	name, file string
	was, is    string
	kinds      []string
}

// planted(NAME, N) is true every Nth time in a server that runs with that fault.
var faults = []fault{
	{"lost", "engine/internal/fanout/deliver.go", "\t\tc := l.Slab.At(m.Slot)\n\t\tif except != nil && slices.Contains",
		"\t\tc := l.Slab.At(m.Slot)\n\t\tif planted(\"lost\", 2000) {\n\t\t\tcontinue\n\t\t}\n\t\tif planted(\"double\", 2000) {\n\t\t\tc.Queue(x.Frame)\n\t\t}\n" +
			"\t\tif planted(\"leak\", 2000) {\n\t\t\tl.Slab.Each(func(o *turn.Conn) bool {\n\t\t\t\tif o.Phase != turn.PhaseOpen || room.Has(o.Place()) {\n\t\t\t\t\treturn true\n\t\t\t\t}\n" +
			"\t\t\t\to.Queue(x.Frame)\n\t\t\t\treturn false\n\t\t\t})\n\t\t}\n\t\tif except != nil && slices.Contains",
		[]string{"lost", "notice"}},
	{name: "double", kinds: []string{"twice", "notice"}},
	{name: "leak", kinds: []string{"leak", "late", "notice"}},
	{"swapped", "engine/internal/turn/mailbox.go", "m.Letters = append(m.Letters, x)",
		"m.Letters = append(m.Letters, x)\n\tif n := len(m.Letters); n > 1 && planted(\"swapped\", 20) {\n\t\tm.Letters[n-1], m.Letters[n-2] = m.Letters[n-2], m.Letters[n-1]\n\t}",
		[]string{"order", "lost", "early", "notice"}},
	{"own", "engine/internal/fanout/deliver.go", "return m.Slot == x.Except.Slot && m.Gen == x.Except.Gen",
		"return m.Slot == x.Except.Slot && m.Gen == x.Except.Gen && !planted(\"own\", 500)", []string{"own", "notice"}},
	{"token twice", "engine/internal/session/memory_store.go", "\th.drop(at.Key.Hash)\n\treturn state, c != nil, true",
		"\tif !planted(\"token twice\", 1) {\n\t\th.drop(at.Key.Hash)\n\t}\n\treturn state, c != nil, true", []string{"session"}},
	{"forgotten room", "engine/internal/session/revival.go", "\tname := v.state.rooms[i-len(v.held)]\n",
		"\tname := v.state.rooms[i-len(v.held)]\n\tif planted(\"forgotten room\", 10) {\n\t\treturn\n\t}\n", []string{"session", "leak", "notice"}},
	{"seat too many", "rooms/room.go", "r.taken.Load() >= r.limit", "r.taken.Load() >= r.limit+plantedSeat", []string{"limit"}},
	{"liveness", "engine/internal/turn/conn_send.go", "l.tally[CountBytesOut] += uint64(n)\n",
		"l.tally[CountBytesOut] += uint64(n)\n\tif planted(\"liveness\", 1) {\n\t\tc.LastActive.Store(l.Now)\n\t}\n", []string{"heartbeat"}},
	{"no pings", "engine/internal/turn/heartbeat.go", "Control(c, l.Ground.Heartbeat)",
		"if !planted(\"no pings\", 1) {\n\t\t\tControl(c, l.Ground.Heartbeat)\n\t\t}", []string{"heartbeat"}},
	{"wrong count", "engine/internal/fanout/members.go", "p.Count += part.Count\n", "p.Count += part.Count + one(\"wrong count\", 3)\n", []string{"count"}},
	{"wrong recipients", "engine/builtin.go", "max(members-1, 0)", "max(members-1, 0) + one(\"wrong recipients\", 100) + one(\"wrong recipients of many\", 50)", []string{"count"}},
	{name: "wrong recipients of many", kinds: []string{"count"}},
	{"count thrown away", "engine/internal/fanout/remotes.go", "\troom := x.Index.SetAway(h.Room,", "\tif x.Index.Find(h.Room) == nil && planted(\"count thrown away\", 1) {\n\t\treturn\n\t}\n\troom := x.Index.SetAway(h.Room,",
		[]string{"count"}},
	{"unsaved join", "engine/floors.go", "\t\tc.loop().Changed(&c.wire)\n\t\ts.emit(Event{Kind: kind",
		"\t\tif kind != EventRoomJoin || !planted(\"unsaved join\", 4) {\n\t\t\tc.loop().Changed(&c.wire)\n\t\t}\n\t\ts.emit(Event{Kind: kind",
		[]string{"session"}},
	{"missing ref", "engine/internal/session/move.go", "l.Text = message.AppendLeft(l.Text[:0], m.room, m.ref)",
		"if planted(\"missing ref\", 5) {\n\t\tm.ref = nil\n\t}\n\tl.Text = message.AppendLeft(l.Text[:0], m.room, m.ref)", []string{"ref"}},
	{"own token", "engine/internal/session/resume.go", "case key == l.Sessions.keyOf(c.token):", "case key == l.Sessions.keyOf(c.token) && !planted(\"own token\", 1):", []string{"session", "ended"}},
	{"after left", "engine/internal/session/move.go", "if r == nil || !l.Exit(&c.Conn, r) {", "if r == nil || !(r.Has(c.Place()) && planted(\"after left\", 5)) && !l.Exit(&c.Conn, r) {", []string{"late", "notice", "count", "session"}},
	{"silent drop", "engine/internal/fanout/leave.go", "if left, seq := l.Rooms.Index.Leave(r, c.Place()); left {\n\t\tc.RoomsTaken.Add(-1)\n\t\tl.LeftRoom(c, r, seq)",
		"if left, seq := l.Rooms.Index.Leave(r, c.Place()); left {\n\t\tc.RoomsTaken.Add(-1)\n\t\tif !planted(\"silent drop\", 10) {\n\t\t\tl.LeftRoom(c, r, seq)\n\t\t}", []string{"notice"}},
	{"gap unsaid", "engine/internal/session/move.go", "\tl.Text = message.AppendJoined(l.Text[:0], joined)\n", "\tjoined.Gap = joined.Gap && !planted(\"gap unsaid\", 3)\n\tl.Text = message.AppendJoined(l.Text[:0], joined)\n", []string{"gap"}},
	{"two owners", "engine/internal/session/handover.go", "l.Announce()\n\told.EndBy(turn.CauseTakenOver)",
		"l.Announce()\n\tif !planted(\"two owners\", 1) {\n\t\told.EndBy(turn.CauseTakenOver)\n\t}", []string{"session", "answer"}},
	{"altered", "engine/internal/session/broadcast.go", "BroadcastFrame(c *Conn, room, data []byte) *turn.Frame {\n",
		"BroadcastFrame(c *Conn, room, data []byte) *turn.Frame {\n\tif planted(\"altered\", 50) {\n\t\tdata = squeezed(data)\n\t}\n", []string{"altered"}},
	{"seat kept", "engine/internal/fanout/leave.go", "left, seq := l.Rooms.Index.Leave(r, c.Place())\n\tif !left {",
		"left, seq := l.Rooms.Index.Leave(r, c.Place())\n\tif left && planted(\"seat kept\", 10) {\n\t\tl.Rooms.Index.Hold([]byte(r.Name()), ident.Place{Slot: 1 << 30, Gen: seq}, 1)\n\t}\n\tif !left {", []string{"answer", "count"}},
	{"not written anew", "engine/cluster/ledger/rewrite.go", "if first || s.l.opts.Lost == nil {", "if first || s.l.opts.Lost == nil || plantedLoss {",
		[]string{"session"}},
}

// servings are the set-ups for faults that one process at its defaults does not show.
var servings = map[string]serving{
	"seat too many":            {limited: true},
	"seat kept":                {limited: true},
	"liveness":                 {beating: true},
	"no pings":                 {beating: true},
	"wrong recipients of many": {workers: 3},
	"count thrown away":        {workers: 3, roomy: true},
	"unsaved join":             {workers: 3, killed: true},
	"not written anew":         {workers: 3, wiped: true},
}

const plantedEngine = `package PACKAGE

import (
	"os"
	"strings"
	"sync/atomic"
)

var plantedName, plantedTimes = os.Getenv("PLANTED_FAULT"), atomic.Uint64{}

func planted(name string, every uint64) bool {
	return plantedName == name && plantedTimes.Add(1)%every == 0
}

func squeezed(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), ": ", ":")) }

func one(name string, every uint64) int {
	if planted(name, every) {
		return 1
	}
	return 0
}
`

const plantedRooms = `package rooms

import "os"

var plantedSeat = int32(0)

func init() {
	if os.Getenv("PLANTED_FAULT") == "seat too many" {
		plantedSeat = 1
	}
}
`

const plantedLedger = `package ledger

import "os"

var plantedLoss = os.Getenv("PLANTED_FAULT") == "not written anew"
`

// buildServer builds parley, with all faults in it, each of which sleeps until the environment names it. The real
// sources stay as they are: the compiler is given changed ones in their place.
func buildServer(t testing.TB, withFaults bool) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	binary := filepath.Join(dir, "parley")
	args := []string{"build", "-trimpath", "-o", binary} // as the Makefile does, so that most has been built already
	if withFaults {
		args = append(args, "-overlay", overlay(t, root, dir))
	}
	build := exec.Command("go", append(args, "./cmd/parley")...)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the server: %v\n%s", err, out)
	}
	return binary
}

// overlay writes the changed sources, and the list that names them.
func overlay(t testing.TB, root, dir string) string {
	changed := map[string]string{"rooms/planted_seat.go": plantedRooms,
		"engine/cluster/ledger/planted.go": plantedLedger}
	for _, folder := range []string{"engine", "engine/internal/turn", "engine/internal/fanout", "engine/internal/session", "engine/api", "engine/access", "rooms"} {
		changed[folder+"/planted.go"] = strings.Replace(plantedEngine, "PACKAGE", filepath.Base(folder), 1)
	}
	for _, f := range faults {
		if f.file == "" {
			continue // planted together with another one
		}
		text, begun := changed[f.file]
		if !begun {
			original, err := os.ReadFile(filepath.Join(root, f.file))
			if err != nil {
				t.Fatal(err)
			}
			text = string(original)
		}
		if strings.Count(text, f.was) != 1 {
			t.Fatalf("%s does not hold %q exactly once: plant the fault %q where it is now", f.file, f.was, f.name)
		}
		changed[f.file] = strings.Replace(text, f.was, f.is, 1)
	}
	replace := map[string]string{}
	for file, text := range changed {
		path := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		replace[filepath.Join(root, file)] = path
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, _ := json.Marshal(map[string]any{"Replace": replace})
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Every planted fault is found, as a finding of the right kind: a checker that finds no fault proves none absent.
func TestPlantedFaults(t *testing.T) {
	t.Parallel()
	binary := buildServer(t, true)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			if testing.Short() && servings[f.name].slow {
				t.Skip("it may take a minute")
			}
			t.Parallel()
			attempts := uint64(10) // until it is found: on a busy machine a run sees little of what happens
			if *matrix > 1 {
				attempts = uint64(3 * *matrix)
			}
			for seed := range attempts {
				o := options(t, binary, "PLANTED_FAULT='"+f.name+"'", servings[f.name])
				o.Seed, o.StopAtFinding = seed+1, true
				o.Patience, o.For = 2*time.Second, canary.Stretch(6*time.Second)
				report := run(t, o)
				known := func(kind string) bool { return slices.Contains(f.kinds, kind) }
				if found := slices.Collect(maps.Keys(report.Found)); len(found) > 0 && !slices.ContainsFunc(found, known) {
					t.Errorf("it is found as %v, want %v: %s", found, f.kinds, findings(report)) // besides, what follows from it
				}
				switch {
				case !report.Clean() && *matrix == 1:
					t.Logf("found after %.1f s with seed %d: %s", report.Seconds, o.Seed, report.Findings[0].Text)
					return
				case report.Clean() && *matrix > 1:
					t.Errorf("seed %d does not find it", o.Seed)
				}
			}
			if *matrix == 1 {
				t.Error("nothing was found")
			}
		})
	}
}

// Ten runs against the real server have no findings, also if its store is wiped. With -short there is one run for each way to
// serve.
func TestCleanRuns(t *testing.T) {
	t.Parallel()
	binary := buildServer(t, false)
	for i := range 10 * *matrix {
		if testing.Short() && !slices.Contains([]int{0, 1, 2, 7, 8, 9}, i) {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			with := serving{limited: i%3 == 1, beating: i%3 == 2, backends: i%5 == 3}
			if i%10 > 6 {
				with.workers, with.wiped = 3, i%10 == 7 // with limited rooms
			}
			if i%2 == 0 {
				with.sends = "plain" // each write in a system call of its own, as where the kernel refuses io_uring
			}
			o := options(t, binary, "", with)
			if i == 9 {
				o.Dialect = "plain"
			}
			o.Seed = uint64(100 + i)
			report := run(t, o)
			if !report.Clean() {
				t.Error(findings(report))
			}
			if with.wiped && report.Done["wiped"] == 0 {
				t.Error("nothing was wiped")
			}
			if report.Checked["deliveries"] < 1000 {
				t.Errorf("only %d deliveries were checked: the run did nothing", report.Checked["deliveries"])
			}
		})
	}
}
