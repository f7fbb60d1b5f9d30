package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// deed is an action of a worker's application, on the tests' order.
type deed struct {
	Verb   string          `json:"verb"`
	Rooms  []string        `json:"rooms"`
	To     string          `json:"to"`
	Key    string          `json:"key"`
	Value  string          `json:"value"`
	Say    json.RawMessage `json:"say"`
	Except []string        `json:"except"`
}

// handleDeeds lets a client use the application's side of its worker.
func handleDeeds(srv *engine.Server) {
	srv.RegisterFilter("value begins", func(c *engine.Conn, asked []byte) bool {
		v, ok := engine.Attribute[string](c, "value")
		return ok && len(v) > 0 && v[:1] == string(asked)
	})
	engine.On(srv, "do", func(_ *engine.Conn, d deed, s *engine.Server) (any, error) {
		n, err := d.do(s)
		out := m{"type": "done", "n": n}
		if err != nil {
			out["err"], out["partial"] = err.Error(), errors.Is(err, engine.ErrPartial)
		}
		return out, nil
	}, engine.Offload())
}

func (d deed) do(s *engine.Server) (n any, err error) {
	ctx, say := context.Background(), []byte(d.Say)
	switch d.Verb {
	case "broadcast":
		return s.Broadcast(d.Rooms[0], say, d.Except...)
	case "broadcastAll":
		return nil, s.BroadcastAll(say, d.Except...)
	case "broadcastRooms":
		return nil, s.BroadcastRooms(d.Rooms, say, d.Except...)
	case "broadcastMatching":
		return nil, s.BroadcastMatching(d.Key, d.Value, say, d.Except...)
	case "broadcastFiltered":
		return nil, s.BroadcastFiltered(d.Key, []byte(d.Value), say, d.Except...)
	case "sendTo":
		return s.SendTo(d.To, say), nil
	case "broadcastLarge":
		n, err := strconv.Atoi(d.Value)
		if err != nil {
			return nil, err
		}
		return s.Broadcast(d.Rooms[0], slices.Concat([]byte(`{"type":"note","n":"`), bytes.Repeat([]byte("x"), n-22), []byte(`"}`)))
	case "endSessions":
		return s.Everywhere().EndSessions(ctx, engine.Address{Users: []string{d.To}})
	case "facts":
		f, err := s.Everywhere().ConnectionFacts(ctx, d.To)
		return f.Session, err
	case "count":
		return s.Everywhere().ConnectionCount(ctx)
	case "stats":
		stats, err := s.Everywhere().Stats(ctx)
		return stats.Rooms, err
	}
	return nil, fmt.Errorf("no such deed: %s", d.Verb)
}

// do sends the client's worker a deed, and returns the answer.
func (c *client) do(d deed) map[string]any {
	c.t.Helper()
	raw, _ := json.Marshal(d)
	var with m
	json.Unmarshal(raw, &with)
	with["type"] = "do"
	c.send(with)
	return c.until("done")
}

// heard returns the numbers of notes that come up to the one that ends them.
func (c *client) heard(end float64) (list []float64) {
	c.t.Helper()
	for {
		n := c.until("note")["n"].(float64)
		if n == end {
			return list
		}
		list = append(list, n)
	}
}

func note(n int) json.RawMessage { return fmt.Appendf(nil, `{"type":"note","n":%d}`, n) }

// onEach dials until every worker has a client, and returns one of each.
func (s *serverProcess) onEach(n int) (list []*client) {
	s.t.Helper()
	var pids []int
	for range n {
		c := s.dialAt("", pids...)
		pids = append(pids, c.pid)
		list = append(list, c)
	}
	return list
}

// members is the answer to a client about a room: the count, and the sorted ids.
func (c *client) members(room string) (count float64, ids []string, partial bool) {
	c.t.Helper()
	c.send(m{"type": "members", "room": room})
	answer := c.until("members")
	for _, id := range answer["members"].([]any) {
		ids = append(ids, id.(string))
	}
	slices.Sort(ids)
	return answer["count"].(float64), ids, answer["partial"].(bool)
}

// The largest allowed message reaches members on all workers; a larger one is refused before any member gets it.
func TestLargestMessage(t *testing.T) {
	t.Parallel()
	const most = 8<<20 - 64<<10
	cfg := engine.Config{Processes: 2, HeartbeatInterval: time.Minute, MessageBytesMax: most, BacklogSoftBytes: 32 << 20, BacklogHardBytes: 64 << 20}
	s := startProcesses(t, cfg)
	room := strings.Repeat("é\\", 85)
	list := s.onEach(2)
	list[0].join(room)
	list[1].join(room)
	poll(t, "the other is known", func() bool { n, _, _ := list[0].members(room); return n == 2 })
	said := m{"type": "broadcast", "room": room, "data": ""}
	empty, _ := json.Marshal(said)
	said["data"] = strings.Repeat("x", most-len(empty))
	list[0].send(said)
	if got := list[1].until("broadcast"); got["data"] != said["data"] {
		t.Error("the largest message has not arrived as it was")
	}
	for n, want := range map[int]any{most: nil, most + 1: engine.ErrMessageTooLarge.Error()} {
		done := list[0].do(deed{Verb: "broadcastLarge", Rooms: []string{room}, Value: strconv.Itoa(n)})
		if done["err"] != want {
			t.Errorf("%d bytes: %v, want %v", n, done["err"], want)
		}
	}
	list[1].until("note")
	list[0].do(deed{Verb: "broadcast", Rooms: []string{room}, Say: note(1)})
	if next := list[1].until("note"); next["n"] != 1.0 {
		t.Error("what was refused has arrived")
	}
	cfg.MessageBytesMax++
	if _, err := engine.New(cfg); err == nil || !strings.HasPrefix(err.Error(), "message_bytes_max: ") {
		t.Errorf("a larger one may be set: %v", err)
	}
}

// The messages of one worker's application reach their receivers on all workers, in its order, and no other client.
func TestSendsAcrossWorkers(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, engine.Config{Processes: 4, HeartbeatInterval: time.Minute})
	list := s.onEach(4)
	var except []string
	for i, c := range list {
		c.join("all")
		c.join(fmt.Sprintf("r%d", i%2))
		c.keep(string(rune('a'+i%2)) + "x")
		except = append(except, c.id)
	}
	sender, end := list[0], 1000.0
	for i, d := range []deed{
		{Verb: "broadcast", Rooms: []string{"all"}},
		{Verb: "broadcast", Rooms: []string{"r1"}, Except: except[1:2]},
		{Verb: "broadcastRooms", Rooms: []string{"all", "r0", "r1"}, Except: except[2:3]},
		{Verb: "broadcastAll", Except: except[3:]},
		{Verb: "broadcastMatching", Key: "value", Value: "bx"},
		{Verb: "broadcastMatching", Key: "value", Value: "bx", Except: except[3:]},
		{Verb: "broadcastFiltered", Key: "value begins", Value: "a"},
		{Verb: "broadcastFiltered", Key: "value begins", Value: "a", Except: except[:1]},
		{Verb: "sendTo", To: list[2].id},
	} {
		d.Say = note(i + 1)
		if answer := sender.do(d); answer["err"] != nil {
			t.Fatal(d.Verb, answer)
		}
	}
	sender.send(m{"type": "do", "verb": "broadcastAll", "say": note(int(end))})
	for i, want := range [][]float64{{1, 3, 4, 7}, {1, 3, 4, 5, 6}, {1, 2, 4, 7, 8, 9}, {1, 2, 3, 5}} {
		if i == 0 {
			// The sender's own notes came between the answers, which it read.
			sender.heard(end)
			continue
		}
		if i == 2 {
			want = []float64{1, 4, 7, 8, 9}
		}
		if got := list[i].heard(end); !slices.Equal(got, want) {
			t.Errorf("client %d hears %v, want %v", i, got, want)
		}
	}
	t.Run("order", func(t *testing.T) { orderAcross(t, list) })
}

// orderAcross checks that one sender's messages to two rooms and to one connection come in its order.
func orderAcross(t *testing.T, list []*client) {
	to := list[3]
	to.join("r0")
	sender := list[2] // in "all" and "r0", as the receiver now
	const rounds = 200
	go func() {
		for i := range rounds {
			switch i % 3 {
			case 0:
				sender.send(m{"type": "broadcast", "room": "all", "data": i})
			case 1:
				sender.send(m{"type": "broadcast", "room": "r0", "data": i})
			default:
				sender.send(m{"type": "do", "verb": "sendTo", "to": to.id, "say": json.RawMessage(fmt.Sprintf(`{"type":"broadcast","data":%d}`, i))})
			}
		}
	}()
	for i := range rounds {
		if got := to.until("broadcast")["data"]; got != float64(i) {
			t.Fatalf("got %v, want %d", got, i)
		}
	}
}

// Within a second without changes every worker counts right, by each way to ask; a killed worker's members vanish, and are
// announced as left.
func TestCountsConverge(t *testing.T) {
	t.Parallel()
	const rooms = 5
	s := startProcesses(t, engine.Config{Processes: 4, HeartbeatInterval: time.Minute, AnnounceMembersMax: 500})
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	list := s.onEach(4)
	for range 12 {
		list = append(list, s.dial(""))
	}
	in := map[string]map[string]bool{}
	room := func(i int) string { return fmt.Sprintf("room%d", i) }
	for i := range rooms {
		in[room(i)] = map[string]bool{}
	}
	stir := func() {
		for range some(300, 100) {
			c, r := list[random.IntN(len(list))], room(random.IntN(rooms))
			if in[r][c.id] {
				c.send(m{"type": "leave", "room": r})
				c.until("left")
				delete(in[r], c.id)
			} else {
				c.join(r)
				in[r][c.id] = true
			}
		}
		for _, c := range list[:4] { // one of each worker is in all rooms, to ask
			for r := range in {
				c.join(r)
				in[r][c.id] = true
			}
		}
	}
	for range 3 {
		stir()
		checkCounts(t, list[:4], in)
	}
	dying := list[3]
	if err := syscall.Kill(dying.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	dead := map[string]bool{}
	list = slices.DeleteFunc(list, func(c *client) bool {
		if c.pid == dying.pid {
			dead[c.id] = true
		}
		return c.pid == dying.pid
	})
	left := map[string]int{}
	for r, members := range in {
		for id := range dead {
			if members[id] {
				left[r+" "+id]++
				delete(members, id)
			}
		}
	}
	for _, c := range list[:3] {
		want := len(left)
		seen := map[string]bool{}
		for len(seen) < want {
			m := c.until("member_left")
			key := m["room"].(string) + " " + m["connection_id"].(string)
			if seen[key] {
				t.Fatal("told twice:", key)
			}
			if dead[m["connection_id"].(string)] && left[key] == 1 {
				seen[key] = true
			}
		}
	}
	checkCounts(t, list[:3], in)
}

// checkCounts waits until each of the askers gets the right counts.
func checkCounts(t *testing.T, askers []*client, in map[string]map[string]bool) {
	t.Helper()
	wrong := ""
	if !canary.Wait(patient, func() bool { wrong = wrongCount(askers, in); return wrong == "" }) {
		t.Fatalf("after %v of calm: %s", patient, wrong)
	}
}

func wrongCount(askers []*client, in map[string]map[string]bool) string {
	for i, c := range askers {
		for r, want := range in {
			count, ids, partial := c.members(r)
			if int(count) != len(want) || len(ids) != len(want) || partial {
				return fmt.Sprintf("asker %d is told of %v members of %s (listed: %d, partial: %v), %d are in", i, count, r, len(ids), partial, len(want))
			}
			for _, id := range ids {
				if !want[id] {
					return fmt.Sprintf("asker %d is told that %s is in %s", i, id, r)
				}
			}
			// The answer to a join has the same count, from the worker's own record of the others.
			c.send(m{"type": "join", "room": r})
			if n := c.until("joined")["members"]; n != float64(len(want)) {
				return fmt.Sprintf("asker %d: joined says %v members of %s, %d are in", i, n, r, len(want))
			}
		}
		if answer := c.do(deed{Verb: "stats"}); answer["n"] != float64(len(in)) || answer["err"] != nil {
			return fmt.Sprintf("asker %d: %v rooms in all, want %d", i, answer, len(in))
		}
	}
	return ""
}

// The first client that joins a room on its worker is told of all members, also after a long time without changes, and on a
// worker that has just replaced a dead one.
func TestFirstOnAWorkerIsToldOfAll(t *testing.T) {
	t.Parallel()
	const rooms = 1000
	s := startProcesses(t, engine.Config{Processes: 2, HeartbeatInterval: time.Minute})
	list := s.onEach(2)
	for i := range rooms {
		list[0].join(fmt.Sprint("room", i))
	}
	next := 0
	first := func(c *client) int {
		t.Helper()
		if next == rooms {
			t.Fatal("whoever is the first to join is never told of the other")
		}
		c.send(m{"type": "join", "room": fmt.Sprint("room", next)})
		next++
		return int(c.until("joined")["members"].(float64))
	}
	tell := func(c *client) {
		t.Helper()
		poll(t, "the other is known to the first to join", func() bool { return first(c) == 2 })
		room := fmt.Sprint("room", next)
		if n := first(c); n != 2 {
			t.Errorf("calm, and %d members are told of the two in %s", n, room)
		}
		c.send(m{"type": "broadcast", "room": room, "data": 1})
		if n := c.until("broadcast_sent")["recipients"]; n != 1.0 {
			t.Errorf("%v recipients are told of in %s, there is one", n, room)
		}
	}
	tell(list[1])
	if err := syscall.Kill(list[1].pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	poll(t, "it is gone", func() bool { return !slices.Contains(s.pids(), list[1].pid) })
	tell(s.dialAt("", list[0].pid))
}
