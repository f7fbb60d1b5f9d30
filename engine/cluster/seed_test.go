package cluster_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// The calls of the original document over four workers: docs/from-the-seed.md, third column.

// seedOrder is a client's request to its worker's application to make a call.
type seedOrder struct {
	Call string `json:"call"`
	ID   string `json:"id"`
	Room string `json:"room"`
	N    int    `json:"n"`
}

// seedEvents are the events of a worker's emitter, and of its listener of all workers.
type seedEvents struct {
	mu        sync.Mutex
	here, all []string
}

func (e *seedEvents) note(list *[]string, text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*list = append(*list, text)
}

// listen is `$e->on(...)` of three kinds, here and everywhere.
func (e *seedEvents) listen(s *engine.Server) {
	kinds := []engine.EventKind{"websocket.connect", "websocket.disconnect", "websocket.reconnect"}
	for _, kind := range kinds {
		s.Emitter().On(kind, func(ev engine.Event) { e.note(&e.here, string(kind)+" "+ev.Conn.ID()) })
	}
	s.Everywhere().OnEvent(kinds, func(ev engine.RemoteEvent) {
		text := string(ev.Kind) + " " + ev.Conn.ID
		if ev.Session != nil {
			text += " " + ev.Session.PreviousConnectionID
		}
		e.note(&e.all, text)
	})
}

// handleSeed lets a client make the original's calls on its worker.
func handleSeed(srv *engine.Server) {
	srv.RegisterFilter("everybody", func(*engine.Conn, []byte) bool { return true })
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		if r.Header("Authorization") == "" && r.Query("token") == "bad" {
			return engine.Refuse(4001, "Unauthorized")
		}
		return nil
	})
	events := &seedEvents{}
	engine.On(srv, "seed", func(c *engine.Conn, o seedOrder, s *engine.Server) (any, error) {
		switch o.Call {
		case "fail":
			return nil, &engine.Error{Code: "seed_failed", Message: "as asked"}
		case "listen":
			events.listen(s)
			return engine.M{"type": "seeded"}, nil
		case "heard":
			events.mu.Lock()
			defer events.mu.Unlock()
			return engine.M{"type": "seeded", "here": slices.Clone(events.here), "all": slices.Clone(events.all)}, nil
		}
		here, all, err := seedCall(s, c, o)
		return engine.M{"type": "seeded", "here": here, "all": all, "err": fmt.Sprint(err)}, nil
	}, engine.Offload())
}

func idsOf(list []engine.Facts) []string {
	ids := []string{}
	for _, f := range list {
		ids = append(ids, f.ID)
	}
	slices.Sort(ids)
	return ids
}

func idsHere(list []*engine.Conn) []string {
	ids := []string{}
	for _, c := range list {
		ids = append(ids, c.ID())
	}
	slices.Sort(ids)
	return ids
}

// seedCall makes a call of the second column, and the one that the third names for all workers.
func seedCall(s *engine.Server, c *engine.Conn, o seedOrder) (here, all any, err error) {
	ctx, x, say := context.Background(), s.Everywhere(), engine.M{"type": "note", "n": o.N}
	switch o.Call {
	case "config":
		return []any{os.Getpid(), s.Config().HeartbeatInterval, s.Rooms() != nil}, nil, nil
	case "broadcast":
		here, err = s.Broadcast(o.Room, say)
	case "broadcastExcept":
		here, err = s.Broadcast(o.Room, say, o.ID)
	case "broadcastAll":
		err = s.BroadcastAll(say)
	case "sendTo":
		here = s.SendTo(o.ID, say)
		say["n"] = o.N + 1
		all, err = x.SendTo(ctx, o.ID, say)
	case "createRoom":
		err = s.Rooms().Create(o.Room, engine.RoomOptions{MaxMembers: 7, Metadata: engine.M{"game": "chess"}})
	case "joinRoom":
		here, err = fmt.Sprint(s.Rooms().Join(s.Connection(o.ID), o.Room)), x.Join(ctx, o.ID, o.Room)
	case "leaveRoom":
		s.Rooms().Leave(s.Connection(o.ID), o.Room)
		err = x.Leave(ctx, o.ID, o.Room)
	case "getRoomMembers":
		all, err = x.Members(ctx, o.Room)
		return idsHere(s.Rooms().Members(o.Room)), all, err
	case "getRoomStats":
		stats, ok := s.Rooms().Stats(o.Room)
		return stats, ok, nil
	case "getRooms":
		all, err = x.Rooms(ctx)
		return s.Rooms().List(), all, err
	case "getConnection":
		found := s.Connection(o.ID)
		found.Touch()
		all, err = x.Connection(ctx, o.ID)
		return []any{found != nil, found.Alive(), !found.LastActivity().IsZero(), found.Facts().ID}, all, err
	case "getConnections":
		everybody, err := x.FindFiltered(ctx, "everybody", nil)
		return idsHere(slices.Collect(s.Connections())), idsOf(everybody), err
	case "findConnections":
		found, err := x.FindByAttribute(ctx, "value", "sought")
		is := func(c *engine.Conn) bool { v, _ := engine.Attribute[string](c, "value"); return v == "sought" }
		if a, b := idsHere(s.FindConnections(is)), idsHere(s.FindByAttribute("value", "sought")); !slices.Equal(a, b) {
			return a, b, engine.ErrPartial
		}
		return idsHere(s.FindConnections(is)), idsOf(found), err
	case "getConnectionCount":
		all, err = x.ConnectionCount(ctx)
		return s.ConnectionCount(), all, err
	case "getStats":
		all, err = x.Stats(ctx)
		return s.Stats(), all, err
	case "self":
		return []any{c.ID(), c.Facts().ID, c.Principal()}, nil, c.Send(say)
	case "close":
		err = x.Close(ctx, o.ID, 4001, "enough")
	}
	return here, all, err
}

// seedWorld is a server of four workers, and a client of each.
type seedWorld struct {
	t    *testing.T
	s    *serverProcess
	list []*client
}

// call makes the first client's worker make a call.
func (x *seedWorld) call(o seedOrder) map[string]any {
	x.t.Helper()
	return x.callOn(0, o)
}

func (x *seedWorld) callOn(worker int, o seedOrder) map[string]any {
	x.t.Helper()
	x.list[worker].send(m{"type": "seed", "call": o.Call, "id": o.ID, "room": o.Room, "n": o.N})
	return x.list[worker].until("seeded")
}

// eventually calls until the answer is right: the workers' knowledge of each other is a moment old.
func (x *seedWorld) eventually(o seedOrder, right func(answer m) bool) {
	x.t.Helper()
	var answer m
	defer func() {
		if x.t.Failed() {
			x.t.Logf("%s: the last answer was %v", o.Call, answer)
		}
	}()
	poll(x.t, o.Call+" says what the table says", func() bool {
		answer = x.call(o)
		return right(answer)
	})
}

// check compares the answer to a call with the expected one.
func (x *seedWorld) check(what string, ok bool, got any) {
	x.t.Helper()
	if !ok {
		x.t.Errorf("%s: %v", what, got)
	}
}

func (x *seedWorld) ids() (ids []string) {
	for _, c := range x.list {
		ids = append(ids, c.id)
	}
	slices.Sort(ids)
	return ids
}

func listed(v any) (list []string) {
	some, _ := v.([]any) // null where there is none
	for _, s := range some {
		list = append(list, s.(string))
	}
	slices.Sort(list)
	return list
}

// seedRows are the rows of the table by their first words, each with its scope and its check. The checks run in this order.
var seedRows = []struct {
	rows  []string
	scope string
	check func(x *seedWorld)
}{
	{[]string{"`config/", "`new Enhanced", "`$server->on('chat'", "`return [...]", "`$server->getRoomManager()"}, "the same", seedPrograms},
	{[]string{"`['type' => 'error'"}, "the same", func(x *seedWorld) {
		x.list[1].send(m{"type": "seed", "call": "fail"})
		answer := x.list[1].until("error")
		x.check("error", answer["code"] == "seed_failed", answer)
	}},
	{[]string{"`$server->on('connect'", "`$request->getHeaderLine", "`$c->close(4001, 'Unauthorized')"}, "the same", func(x *seedWorld) {
		_, err := x.s.connect("?token=bad")
		x.check("refusal", err != nil && strings.Contains(err.Error(), "4001"), err)
	}},
	{[]string{"`$c->getId()", "`$c->getAttribute(", "`$c->setAttribute($k", "`$c->setAttribute('user_id'", "`$c->send(", "`$c->getInfo()"}, "the same", seedConn},
	{[]string{"`$server->broadcast($room, $m)`", "`$server->broadcast($room, $m, [", "`$server->broadcastAll(", "`$server->sendTo("}, "all workers", seedSends},
	{[]string{"`createRoom(", "`getRoomStats("}, "all workers", seedRoomStats},
	{[]string{"`joinRoom(", "`leaveRoom(", "`getRoomMembers(", "`getRooms()"}, "this worker", seedRooms},
	{[]string{"`getHeartbeatManager()", "`->updateActivity(", "`->isAlive(", "`$server->getConnection($id)"}, "this worker", seedConnection},
	{[]string{"`$server->getConnections()", "`$server->findConnections("}, "this worker", seedFind},
	{[]string{"`$server->getConnectionCount()", "`$server->getStats()"}, "all workers", seedCounts},
	{[]string{"`$server->setEventEmitter(", "`$e->on(", "`websocket.disconnect ", "`websocket.reconnect "}, "this worker", seedEventsOfAll},
	{[]string{"`$c->close()`"}, "the same", func(x *seedWorld) {
		x.call(seedOrder{Call: "close", ID: x.list[3].id})
		code := x.list[3].closed()
		x.check("close", code == 4001, code)
	}},
}

// Each row of the table for migrants is true over four workers, and none is without a check.
func TestSeedCallsOverWorkers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/from-the-seed.md")
	if err != nil {
		t.Fatal(err)
	}
	scopes := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(strings.Trim(line, "|\n"), " | "); len(cells) == 3 && strings.HasPrefix(line, "| `") {
			scopes[strings.TrimSpace(cells[0])] = cells[2]
		}
	}
	if len(scopes) < 38 {
		t.Fatalf("the table has %d rows", len(scopes))
	}
	x := &seedWorld{t: t, s: startProcesses(t, engine.Config{Processes: 4, HeartbeatInterval: time.Minute})}
	x.list = x.s.onEach(4)
	for _, r := range seedRows {
		for _, begin := range r.rows {
			found := false
			for there, scope := range scopes {
				if strings.HasPrefix(there, begin) {
					found = true
					delete(scopes, there)
					if !strings.HasPrefix(scope, r.scope) {
						t.Errorf("%s: the third column says %q, want %q in front", there, scope, r.scope)
					}
				}
			}
			if !found {
				t.Errorf("the table has no row %s", begin)
			}
		}
		r.check(x)
		if t.Failed() {
			return
		}
	}
	for there := range scopes {
		t.Errorf("no check for %s: add it to seedRows", there)
	}
}

func seedPrograms(x *seedWorld) {
	pids := map[any]bool{}
	for i := range x.list {
		here := x.callOn(i, seedOrder{Call: "config"})["here"].([]any)
		pids[here[0]] = true
		x.check("settings", here[1] == float64(time.Minute) && here[2] == true && here[0] == float64(x.list[i].pid), here)
	}
	x.check("one program in each worker", len(pids) == 4, pids)
}

// seedConn makes the calls about a connection on its own worker, and resumes the session on another.
func seedConn(x *seedWorld) {
	ann := x.s.dialAt("?user=ann&name=kept", x.list[0].pid)
	for _, user := range []string{"bob", "ann"} {
		heir := x.s.dialAt("?user="+user, ann.pid)
		heir.send(m{"type": "seed", "call": "self", "n": 7})
		n := heir.until("note")
		self := heir.until("seeded")["here"].([]any)
		x.check("self", n["n"] == 7.0 && self[0] == heir.id && self[1] == heir.id && self[2] == user, self)
		answer := heir.resume(ann.token)
		if user == "bob" {
			x.check("another user's token", answer["code"] == "invalid_token", answer)
		} else {
			x.check("resumed on another worker", answer["type"] == "reconnected" && heir.tell().Attribute == "kept", answer)
		}
		heir.conn.Close()
	}
}

func seedSends(x *seedWorld) {
	for _, c := range x.list {
		c.join("lobby")
	}
	other := x.list[2]
	x.eventually(seedOrder{Call: "broadcast", Room: "lobby", N: 1}, func(a m) bool { return a["here"] == 4.0 })
	x.call(seedOrder{Call: "broadcastExcept", Room: "lobby", ID: other.id, N: 2})
	x.call(seedOrder{Call: "broadcastAll", N: 3})
	sent := x.call(seedOrder{Call: "sendTo", ID: other.id, N: 4})
	x.check("sendTo", sent["here"] == true && sent["all"] == true, sent)
	x.call(seedOrder{Call: "broadcastAll", N: 6})
	drop := func(list []float64) []float64 { return slices.Compact(list) } // the first was said until all were known
	if got := drop(other.heard(6)); !slices.Equal(got, []float64{1, 3, 4, 5}) {
		x.t.Errorf("the one that is left out and sent to hears %v", got)
	}
	if got := drop(x.list[3].heard(6)); !slices.Equal(got, []float64{1, 2, 3}) {
		x.t.Errorf("another hears %v", got)
	}
	gone := x.call(seedOrder{Call: "sendTo", ID: other.id[:4] + "0000" + "0000" + "0000000000ff"})
	x.check("sendTo an id that nobody has, of a worker that lives", gone["all"] == false, gone)
}

func seedRoomStats(x *seedWorld) {
	x.check("createRoom", x.call(seedOrder{Call: "createRoom", Room: "game"})["err"] == "<nil>", "an error")
	for i := range x.list {
		poll(x.t, "a created room is known everywhere", func() bool {
			a := x.callOn(i, seedOrder{Call: "getRoomStats", Room: "game"})
			stats := a["here"].(m)
			return a["all"] == true && stats["max_members"] == 7.0 && stats["created_at"] != 0.0
		})
	}
	x.list[1].join("elsewhere")
	x.list[2].join("elsewhere", "game")
	x.list[0].join("game")
	x.eventually(seedOrder{Call: "getRoomStats", Room: "elsewhere"}, func(a m) bool {
		return a["all"] == true && a["here"].(m)["connections"] == 2.0 && a["here"].(m)["created_at"] == 0.0
	})
	x.eventually(seedOrder{Call: "getRoomStats", Room: "game"}, func(a m) bool { return a["here"].(m)["connections"] == 2.0 })
	none := x.call(seedOrder{Call: "getRoomStats", Room: "no such"})
	x.check("a room that is nowhere", none["all"] == false, none)
}

func seedRooms(x *seedWorld) {
	there := x.list[3]
	joined := x.call(seedOrder{Call: "joinRoom", ID: there.id, Room: "lounge"})
	x.check("joinRoom", joined["here"] == engine.ErrNotOpen.Error() && joined["err"] == "<nil>", joined)
	there.until("joined")
	members := x.call(seedOrder{Call: "getRoomMembers", Room: "lobby"})
	x.check("getRoomMembers", slices.Equal(listed(members["here"]), []string{x.list[0].id}) && slices.Equal(listed(members["all"]), x.ids()), members)
	names := func(v any) (list []string) {
		for _, r := range v.([]any) {
			list = append(list, fmt.Sprint(r.(m)["name"], " ", r.(m)["connections"]))
		}
		slices.Sort(list)
		return list
	}
	x.eventually(seedOrder{Call: "getRooms"}, func(a m) bool {
		return slices.Equal(names(a["here"]), []string{"game 2", "lobby 4"}) &&
			slices.Equal(names(a["all"]), []string{"elsewhere 2", "game 2", "lobby 4", "lounge 1"})
	})
	x.call(seedOrder{Call: "leaveRoom", ID: there.id, Room: "lounge"})
	there.until("left")
}

func seedConnection(x *seedWorld) {
	for i, want := range []bool{true, false} {
		a := x.call(seedOrder{Call: "getConnection", ID: x.list[i].id})
		here := a["here"].([]any)
		all := a["all"].(m)
		x.check("getConnection", here[0] == want && here[1] == want && here[2] == want && all["id"] == x.list[i].id, a)
		x.check("its last activity", all["last_activity"] != nil && all["last_activity"] != (time.Time{}).Format(time.RFC3339), a)
	}
	gone := x.s.dialAt("", x.list[0].pid)
	gone.conn.Close()
	x.eventually(seedOrder{Call: "getConnection", ID: gone.id}, func(a m) bool { return a["err"] == engine.ErrConnectionUnknown.Error() })
}

func seedFind(x *seedWorld) {
	x.list[0].keep("sought")
	x.list[2].keep("sought")
	own := []string{x.list[0].id}
	x.eventually(seedOrder{Call: "getConnections"}, func(a m) bool {
		return slices.Equal(listed(a["here"]), own) && slices.Equal(listed(a["all"]), x.ids())
	})
	a, both := x.call(seedOrder{Call: "findConnections"}), []string{x.list[0].id, x.list[2].id}
	slices.Sort(both)
	x.check("findConnections", slices.Equal(listed(a["here"]), own) && slices.Equal(listed(a["all"]), both), a)
}

func seedCounts(x *seedWorld) {
	x.eventually(seedOrder{Call: "getConnectionCount"}, func(a m) bool { return a["here"] == 4.0 && a["all"] == 4.0 })
	x.eventually(seedOrder{Call: "getStats"}, func(a m) bool {
		here, all := a["here"].(m), a["all"].(m)
		near := func(key string, share float64) bool { // both go on counting
			h, o := here[key].(float64), all[key].(float64)
			return h > 0 && h >= o*share && h <= o/share
		}
		return here["connections"] == 4.0 && all["connections"] == 4.0 && here["rooms"] == 3.0 && all["rooms"] == 3.0 &&
			near("messages_sent", .8) && near("messages_received", .8) && near("memory_usage", .5) &&
			here["accepted"].(float64) < all["accepted"].(float64) && here["uptime"] != nil
	})
}

func seedEventsOfAll(x *seedWorld) {
	x.call(seedOrder{Call: "listen"})
	var old, heir *client
	has := func(v any, text string) bool { return slices.Contains(listed(v), text) }
	poll(x.t, "connects on other workers are told", func() bool { // they hear the wish within milliseconds
		old = x.s.dialAt("", x.list[0].pid)
		return has(x.call(seedOrder{Call: "heard"})["all"], "websocket.connect "+old.id)
	})
	heir = x.s.dialAt("", x.list[0].pid)
	heir.resume(old.token)
	here := x.s.dialAt("", x.list[1].pid, x.list[2].pid, x.list[3].pid)
	x.eventually(seedOrder{Call: "heard"}, func(a m) bool {
		for _, text := range []string{"websocket.connect " + old.id, "websocket.disconnect " + old.id, "websocket.reconnect " + heir.id} {
			if has(a["here"], text) {
				x.t.Errorf("the emitter has told what happened on another worker: %s", text)
			}
		}
		return has(a["here"], "websocket.connect "+here.id) && has(a["all"], "websocket.connect "+here.id) &&
			has(a["all"], "websocket.disconnect "+old.id) && has(a["all"], "websocket.reconnect "+heir.id+" "+old.id)
	})
}
