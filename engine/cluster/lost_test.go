package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/parleyd/parley/engine"
)

// lossScene is a server whose clients have tokens, seats and attributes when the bus loses its records.
func lossScene(t *testing.T, s *serverProcess, lose func()) {
	t.Helper()
	list := s.each(2)
	for _, c := range s.each(2) {
		c.join("full")
	}
	made := "made" + t.Name()
	if wrong := list[0].creates(made, 5); wrong != "<nil>" {
		t.Fatal(wrong)
	}
	stay := s.dial("")
	stay.join(made)
	for i, c := range list {
		c.join("limited", "free")
		c.keep(string(rune('a' + i)))
	}
	lose()

	// A newcomer gets a token, and no seat that is taken.
	late := s.dial("")
	poll(t, "a full room is full", func() bool {
		late.send(m{"type": "join", "room": "full", "ref": "l"})
		answer := late.answer("l")
		if answer["type"] == "joined" {
			t.Fatal("a third of two seats is given")
		}
		return answer["code"] == "room_full"
	})
	late.join("elsewhere")
	late.send(m{"type": "leave", "room": "elsewhere"})
	late.until("left")
	// A created room is there, with its members.
	poll(t, "the created room has its member and its limit", func() bool {
		stats, ok := late.roomStats(made)
		return ok && stats.Connections == 1 && stats.MaxMembers == 5
	})
	late.join(made)
	stay.insist(m{"type": "broadcast", "room": made, "data": 1}, "broadcast_sent")
	// An earlier client resumes on another worker, with its whole state.
	for i, c := range list {
		c.conn.Close()
		heir := s.dialAt("", c.pid)
		heir.expectHeir(heir.resumeAtLast(c.token), c, string(rune('a'+i)), "free", "limited")
		late.expectRefused(c.token, "invalid_token")
	}
}

func lossConfig(cfg engine.Config) engine.Config {
	cfg.Processes, cfg.MaxConnectionsPerRoom = 2, 2
	return cfg
}

// An external bus comes back with an empty disk, or an operator removes its streams while the server runs.
func TestExternalBusLosesAll(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	s := startProcesses(t, lossConfig(engine.Config{BusURL: n.url("one")}))
	t.Run("restarted without its files", func(t *testing.T) {
		s.t = t
		lossScene(t, s, func() {
			n.Shutdown()
			n.WaitForShutdown()
			n.dir = t.TempDir()
			n.start()
		})
	})
	t.Run("streams removed", func(t *testing.T) {
		s.t = t
		lossScene(t, s, func() {
			nc, err := nats.Connect(n.url("one"))
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			js, err := jetstream.New(nc)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"KV_sessions", "KV_seats", "KV_shared"} {
				if err := js.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
	s.t = t
	if !strings.Contains(s.output(), "the bus has lost its data") {
		t.Error("the log does not say that the bus has lost its data")
	}
}

// The files of our own bus are deleted, and it is killed, or not.
func TestBusLosesItsFiles(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir) // where the bus keeps its files
	s := startProcesses(t, lossConfig(engine.Config{}))
	for _, kill := range []bool{true, false} {
		name := map[bool]string{true: "killed", false: "running"}[kill]
		t.Run(name, func(t *testing.T) {
			s.t = t
			lossScene(t, s, func() {
				found, err := filepath.Glob(filepath.Join(dir, "parley-bus-*"))
				if err != nil || len(found) != 1 {
					t.Fatal("the bus's directory:", found, err)
				}
				if err := os.RemoveAll(found[0]); err != nil {
					t.Fatal(err)
				}
				if kill {
					was := s.signal("bus", syscall.SIGKILL)
					poll(t, "the bus is back", func() bool { return s.isReady("bus", was) })
				} else {
					poll(t, "the bus has found out", func() bool { return strings.Contains(s.output(), "files of the bus have been deleted") })
				}
			})
		})
	}
	s.t = t
}

// One process that keeps its sessions in data_dir.
func TestDataDirEmptied(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	s := startProcesses(t, engine.Config{Processes: 1, DataDir: dir})
	c := s.dial("")
	c.join("r")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	poll(t, "the server has found out", func() bool { return strings.Contains(s.output(), "the bus has lost its data") })
	c.conn.Close()
	poll(t, "the session is resumed", func() bool {
		heir := s.dial("")
		defer heir.conn.Close()
		return heir.resume(c.token)["type"] == "reconnected"
	})
}
