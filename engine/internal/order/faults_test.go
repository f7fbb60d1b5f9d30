package order

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fault is a change that breaks the order.
type fault struct{ name, file, was, is string }

// Every planted fault is noticed by the worlds: without this, worlds that complain of nothing prove nothing.
func TestPlantedFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a faulty package for each")
	}
	for _, f := range []fault{
		{"the shortest log wins", "engine/internal/order/rebuild.go",
			"g.at.term == b.longest.term && g.at.n > b.longest.n {", "g.at.term == b.longest.term && (b.longest.n == 0 || g.at.n < b.longest.n) {"},
		{"epochs are kept although a follower died unburied", "engine/internal/order/rebuild.go",
			"		if !buried {\n			return false", "		if false {\n			return false"},
		{"an entry of an old term is taken", "engine/internal/order/follower.go",
			"	case at.term < f.term:\n		return m, false, true\n", "	case false:\n"},
		{"a room with a hole is offered", "engine/internal/order/follower_rebuild.go",
			"if !p.live || p.keys != 0 || !ok || at != (rooms.Position{Seq: p.top, Epoch: p.epoch}) {", "if !ok || at == (rooms.Position{}) && !ok {"},
		{"idempotency keys do not outlive the sequencer", "engine/internal/order/rebuild.go", "Keys: x.keys}", "Keys: nil}"},
		{"publishes that may have a number are submitted again", "engine/internal/order/follower.go", "s.number < f.unsure &&", "false &&"},
		{"a submission is numbered twice", "engine/internal/order/sequencer.go", "	f.next++\n", "	f.next += uint64(s.Term & 1)\n"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			own, err := filepath.Abs(filepath.Base(f.file))
			if err != nil {
				t.Fatal(err)
			}
			source, err := os.ReadFile(own)
			if err != nil {
				t.Fatal(err)
			}
			if n := strings.Count(string(source), f.was); n != 1 {
				t.Fatalf("%s holds %q %d times: plant the fault where its text stands once", f.file, f.was, n)
			}
			planted := filepath.Join(t.TempDir(), "planted.go")
			if err := os.WriteFile(planted, []byte(strings.Replace(string(source), f.was, f.is, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			overlay := filepath.Join(t.TempDir(), "overlay.json")
			plan, _ := json.Marshal(map[string]any{"Replace": map[string]string{own: planted}})
			if err := os.WriteFile(overlay, plan, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command("go", "test", "-overlay", overlay, "-run", "TestOrder|TestEpochsAreKept", "-seeds", "1500", "-failfast", ".").CombinedOutput()
			switch {
			case err == nil:
				t.Error("nothing was found")
			case !strings.Contains(string(out), "world_test.go:"):
				t.Errorf("not found by a world:\n%s", out)
			}
		})
	}
}
