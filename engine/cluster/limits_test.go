package cluster_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// limited has so many workers and, but for 0, so many seats in every room.
func limited(workers, seats int) engine.Config {
	return engine.Config{Processes: workers, MaxConnectionsPerRoom: seats, AnnounceMembersMax: -1}
}

// To start a server takes longer than these tests: they share one.
func TestLimitOfEveryRoom(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, limited(4, 3))
	limitHolds(t, s)
	orderHolds(t, s)
}

func TestLimitsOfSomeRooms(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, limited(4, 0))
	createdEverywhere(t, s)
	limitForWhoIsIn(t, s)
	resumeIntoLimited(t, s)
	busAway(t, s)
}

// A room's limit holds for the members of all workers together; a refused client is told why.
func limitHolds(t *testing.T, s *serverProcess) {
	list := s.each(4)
	for _, m := range list[:3] {
		if code := m.joins("r"); code != "" {
			t.Fatal("refused while there are seats:", code)
		}
	}
	last := list[3]
	answer := last.must(`{"type":"join","room":"r","ref":7}`, "error", "joined")
	if answer["code"] != "room_full" || answer["ref"] != 7.0 {
		t.Fatal("three of three are in, and the fourth is told", answer)
	}
	if code := list[0].joins("r"); code != "" {
		t.Fatal("a member is refused in its own room:", code)
	}
	if code := last.joins("other"); code != "" {
		t.Fatal("another room:", code)
	}
	list[1].leaves("r")
	poll(t, "a seat that was given back can be had", func() bool { return last.joins("r") == "" })
	if code := list[1].joins("r"); code != "room_full" {
		t.Fatalf("told %q", code)
	}
	list[2].conn.Close()
	poll(t, "the seat of one who is cut off can be had", func() bool { return list[1].joins("r") == "" })
	list[0].must(`{"type":"enter","room":"r"}`, "entered")
	another := s.dialTo(list[3].pid)
	if answer := another.must(`{"type":"enter","room":"r"}`, "entered"); answer["err"] != engine.ErrRoomFull.Error() {
		t.Error("the application is told", answer)
	}
	list[0].leaves("r")
	poll(t, "the application's join gets the seat", func() bool {
		return another.must(`{"type":"enter","room":"r"}`, "entered")["err"] == "<nil>"
	})
}

// A message that a client sends while it waits for its seat is handled after the join.
func orderHolds(t *testing.T, s *serverProcess) {
	m := s.dialTo(0)
	for round := range 50 {
		room := fmt.Sprint("ordered ", round)
		for _, text := range []string{
			`{"type":"join","room":"` + room + `"}`, `{"type":"broadcast","room":"` + room + `","data":1}`,
			`{"type":"leave","room":"` + room + `"}`, `{"type":"broadcast","room":"` + room + `","data":1}`,
		} {
			m.send(json.RawMessage(text))
		}
		for _, want := range []string{"joined", "broadcast_sent", "left", "error"} {
			m.expect(want)
		}
	}
}

// A created room is the same on every worker, whichever made it, and gone from all of them when one deletes it.
func createdEverywhere(t *testing.T, s *serverProcess) {
	list := s.each(4)
	for round := range some(5, 2) {
		room := fmt.Sprint("room ", round)
		created := 0
		var all sync.WaitGroup
		var mu sync.Mutex
		for i, m := range list {
			all.Go(func() {
				switch err := m.creates(room, 2); err {
				case "<nil>":
					mu.Lock()
					created++
					mu.Unlock()
				case engine.ErrRoomExists.Error():
				default:
					t.Errorf("worker %d: %s", i, err)
				}
			})
		}
		if all.Wait(); created != 1 {
			t.Fatalf("%s was created %d times", room, created)
		}
		for _, m := range list {
			poll(t, "every worker knows the room", func() bool {
				stats, ok := m.roomStats(room)
				return ok && stats.MaxMembers == 2 && string(stats.Metadata) == `{"max":2}` &&
					stats.CreatedAt > time.Now().Add(-time.Minute).Unix()
			})
		}
		if a, b, c := list[0].joins(room), list[1].joins(room), list[2].joins(room); a != "" || b != "" || c != "room_full" {
			t.Fatalf("its limit does not hold: %q %q %q", a, b, c)
		}
		by := list[3]
		if answer := by.must(`{"type":"delete","room":"`+room+`"}`, "deleted"); answer["ok"] != true {
			t.Fatal(answer)
		}
		for _, m := range list[:2] {
			if told, err := m.await("left"); err != nil || told["room"] != room {
				t.Fatal("a member of a deleted room is told", told, err)
			}
		}
		for _, m := range list {
			poll(t, "every worker forgets the room", func() bool { _, ok := m.roomStats(room); return !ok })
		}
		// All its seats are free: the same name again, with the same limit.
		if err := list[2].creates(room, 2); err != "<nil>" {
			t.Fatal(err)
		}
		poll(t, "both seats can be had", func() bool { return list[2].joins(room) == "" })
		poll(t, "both seats can be had", func() bool { return list[3].joins(room) == "" })
		by.must(`{"type":"delete","room":"`+room+`"}`, "deleted")
	}
	// A room that was not created ends on all workers, too.
	list[0].joins("free")
	list[1].joins("free")
	list[0].must(`{"type":"delete","room":"free"}`, "deleted")
	if told, err := list[1].await("left"); err != nil || told["room"] != "free" {
		t.Fatal("told", told, err)
	}
}

// Members stay when a room gets a limit, and count.
func limitForWhoIsIn(t *testing.T, s *serverProcess) {
	list := s.each(3)
	for _, m := range list {
		if code := m.joins("r"); code != "" {
			t.Fatal(code)
		}
	}
	if err := list[0].creates("r", 3); err != "<nil>" {
		t.Fatal(err)
	}
	for _, m := range list {
		poll(t, "every worker knows the limit", func() bool { stats, _ := m.roomStats("r"); return stats.MaxMembers == 3 })
	}
	next := s.dialTo(0)
	poll(t, "all seats are taken", func() bool {
		code := next.joins("r")
		if code == "" {
			next.leaves("r")
		}
		return code == "room_full"
	})
	list[1].leaves("r")
	poll(t, "the seat of who leaves can be had", func() bool { return next.joins("r") == "" })
	if code := list[1].joins("r"); code != "room_full" {
		t.Fatalf("told %q", code)
	}
}

// A dead worker's seats are free within five seconds of its end; those of all workers, if all die at once.
func TestSeatsOfTheDead(t *testing.T) {
	t.Parallel()
	s := startProcesses(t, limited(3, 4))
	list := s.each(3)
	holders := []*client{list[0], list[0], s.dialTo(list[0].pid), s.dialTo(list[0].pid), s.dialTo(list[0].pid)}
	for _, m := range holders {
		if code := m.joins("r"); code != "" {
			t.Fatal(code)
		}
	}
	if code := list[1].joins("r"); code != "room_full" {
		t.Fatalf("told %q", code)
	}
	s.signal("worker 0", syscall.SIGKILL)
	poll(t, "the seats of a dead worker are free", func() bool { return list[1].joins("r") == "" })
	for _, m := range []*client{list[2], s.dialTo(list[1].pid), s.dialTo(list[2].pid)} {
		if code := m.joins("r"); code != "" {
			t.Fatal("one of its seats is not free:", code)
		}
	}
	poll(t, "the next worker is there", func() bool { return s.isReady("worker 0", list[0].pid) })
	var pids [3]int
	for i := range pids {
		pids[i] = s.signal(fmt.Sprint("worker ", i), syscall.SIGKILL)
	}
	for i, pid := range pids {
		poll(t, "the next workers are there", func() bool { return s.isReady(fmt.Sprint("worker ", i), pid) })
	}
	for _, m := range []*client{s.dialTo(0), s.dialTo(0), s.dialTo(0), s.dialTo(0)} {
		poll(t, "the seats of dead workers are free", func() bool { return m.joins("r") == "" })
	}
}

// Resuming takes seats like joining; a take-over keeps the seat that it has.
func resumeIntoLimited(t *testing.T, s *serverProcess) {
	list := s.each(2)
	m := list[0]
	for _, room := range []string{"one", "two"} {
		if err := m.creates(room, 1); err != "<nil>" {
			t.Fatal(err)
		}
		poll(t, "both know the room", func() bool { _, ok := list[1].roomStats(room); return ok })
	}
	if a, b := m.joins("one"), m.joins("two"); a != "" || b != "" {
		t.Fatal(a, b)
	}
	heir := s.dialTo(m.pid)
	resumed := heir.must(`{"type":"reconnect","token":"`+m.token+`"}`, "reconnected", "error")
	if rooms, _ := resumed["rooms"].([]any); len(rooms) != 2 {
		t.Fatal("a take-over in full rooms:", resumed)
	}
	if code := list[1].joins("one"); code != "room_full" {
		t.Fatalf("told %q", code)
	}
	token, err := heir.await("reconnect_token")
	if err != nil {
		t.Fatal(err)
	}
	heir.conn.Close()
	poll(t, "its seat is free", func() bool { return list[1].joins("one") == "" })
	third := s.dialTo(m.pid)
	resumed = third.must(fmt.Sprintf(`{"type":"reconnect","token":%q}`, token["token"]), "reconnected", "error")
	if got := fmt.Sprint(resumed["rooms"], resumed["lost"]); got != "[two] [map[code:room_full room:one]]" {
		t.Fatal("resumed into", got)
	}
}

// While the bus is away a join of a limited room is refused; a join of another room, or of one that the client is in,
// succeeds, or is told to try again, since the store is late.
func busAway(t *testing.T, s *serverProcess) {
	m, creator, resident := s.dialTo(0), s.dialTo(0), s.dialTo(0)
	if err := m.creates("small", 2); err != "<nil>" {
		t.Fatal(err)
	}
	for _, m := range []*client{m, resident} {
		poll(t, "its worker knows the room", func() bool { _, ok := m.roomStats("small"); return ok })
	}
	if code := resident.joins("small"); code != "" {
		t.Fatal(code)
	}
	pid := s.pid("bus")
	back := holdBus(t, s, false)
	var all sync.WaitGroup
	all.Go(func() {
		if err := creator.creates("another", 2); err != engine.ErrUnavailable.Error() {
			t.Errorf("creating a room: %s", err)
		}
	})
	all.Go(func() {
		if code := m.joins("small"); code != "unavailable" {
			t.Errorf("a join of a room with a limit is told %q", code)
		}
	})
	for _, room := range []string{"large", "small"} {
		if code := resident.joins(room); code != "" && code != "unavailable" {
			t.Errorf("a join of %s is told %q", room, code)
		}
	}
	all.Wait()
	back()
	s.signal("bus", syscall.SIGSTOP)
	poll(t, "the supervisor replaces a frozen bus", func() bool { return s.isReady("bus", pid) })
	poll(t, "joins go on", func() bool { return m.joins("small") == "" })
	resident.leaves("small")
	last := s.dialTo(0)
	poll(t, "no seat was kept by the join that was refused", func() bool { return last.joins("small") == "" })
}

// tally counts the clients that certainly hold a seat: joined was answered, leave was not sent, the worker was not killed.
type tally struct {
	limit int

	mu      sync.Mutex
	holders map[*client]bool
	buried  map[int]bool
	most    int
	above   int

	heirs                         bool // some are taken over on another worker
	joined, refused, away, handed atomic.Int64
}

func (x *tally) take(c *client) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.buried[c.pid] {
		return // its worker was about to be killed when it answered
	}
	x.holders[c] = true
	x.most = max(x.most, len(x.holders))
	if len(x.holders) > x.limit {
		x.above++
	}
}

func (x *tally) give(c *client) {
	x.mu.Lock()
	delete(x.holders, c)
	x.mu.Unlock()
}

// bury is called before a worker is killed: its seats may be given to others from the kill on.
func (x *tally) bury(pid int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.buried[pid] = true
	for c := range x.holders {
		if c.pid == pid {
			delete(x.holders, c)
		}
	}
}

// kill ends a worker, or the bus, and waits until it is back.
func (x *tally) kill(s *serverProcess, name string) {
	s.t.Helper()
	x.bury(s.pid(name))
	pid := s.signal(name, syscall.SIGKILL)
	poll(s.t, name+" is back", func() bool { return s.isReady(name, pid) })
}

// churn joins and leaves until told to stop, and comes back when its worker dies.
func (x *tally) churn(s *serverProcess, stop <-chan struct{}) {
	var c *client
	for round := 0; ; round++ {
		select {
		case <-stop:
			if c != nil {
				x.give(c)
				c.conn.Close()
			}
			return
		default:
		}
		if c == nil {
			if c, _ = s.connect(""); c == nil {
				continue
			}
		}
		err := x.round(c, round)
		if err == nil && x.heirs && round%4 == 3 {
			c, err = x.takenOver(s, c)
		}
		if err != nil {
			x.give(c)
			c.conn.Close()
			c = nil
		}
	}
}

// round is a join and a leave, or now and then the end of the connection.
func (x *tally) round(c *client, n int) error {
	code, err := c.tryJoin("r")
	switch {
	case err != nil:
		return err
	case code == "":
		x.joined.Add(1)
		x.take(c)
		for range n % 32 { // for a while
			if _, err := c.ask(`{"type":"tell"}`, "told"); err != nil {
				return err
			}
		}
		x.give(c)
		if n%16 == 15 {
			return errCut
		}
		return c.tryLeave("r")
	case code == "room_full":
		x.refused.Add(1)
	case code == "unavailable":
		x.away.Add(1)
	default:
		return fmt.Errorf("refused with %s", code)
	}
	return nil
}

// takenOver joins, and leaves as an heir of its own.
func (x *tally) takenOver(s *serverProcess, c *client) (*client, error) {
	if code, err := c.tryJoin("r"); err != nil || code != "" {
		return c, err
	}
	x.take(c)
	x.give(c)
	heir, kept, err := s.heir(c)
	if err != nil {
		return c, err
	}
	c.conn.Close()
	if kept {
		x.handed.Add(1)
		x.take(heir)
		x.give(heir)
	}
	return heir, nil
}

var errCut = fmt.Errorf("cut")

func TestTallySeesAMemberTooMany(t *testing.T) {
	x := &tally{limit: 2, holders: map[*client]bool{}, buried: map[int]bool{}}
	list := []*client{{pid: 1}, {pid: 1}, {pid: 2}, {pid: 2}, {pid: 2}}
	for _, c := range list[:2] {
		x.take(c)
	}
	x.bury(1)
	for _, c := range list[2:4] {
		x.take(c)
	}
	if x.above != 0 || x.most != 2 {
		t.Fatal("two of two are none too many:", x.above, x.most)
	}
	if x.take(list[4]); x.above != 1 {
		t.Fatal("three of two went unnoticed")
	}
}

// Clients of four workers join and leave a room of fifty as fast as they can, while workers and the bus are killed. It never
// has more than fifty members, and in the end all seats can be taken.
func TestLimitUnderKills(t *testing.T) {
	const limit, workers = 50, 4
	clients, joins := some(160, 100), int64(some(500, 300))
	s := startProcesses(t, limited(workers, limit))
	x := &tally{limit: limit, holders: map[*client]bool{}, buried: map[int]bool{}}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { x.churn(s, stop) })
	}
	for round := range some(6, 3) {
		before := x.joined.Load()
		poll(t, "clients go on", func() bool { return x.joined.Load() > before+joins })
		if round%3 == 2 {
			x.kill(s, "bus")
			continue
		}
		x.kill(s, fmt.Sprint("worker ", round%workers))
	}
	before := x.joined.Load()
	poll(t, "clients go on", func() bool { return x.joined.Load() > before+joins })
	close(stop)
	all.Wait()
	t.Logf("%d joins, %d refused, %d while the bus was away; %d at once at most", x.joined.Load(), x.refused.Load(), x.away.Load(), x.most)
	x.judge(t, s, limit*8/10)
}

// judge compares the limit with the highest count of members, and with how many clients can join in the end. least is how
// many must have been members at some moment.
func (x *tally) judge(t *testing.T, s *serverProcess, least int) {
	t.Helper()
	if x.above > 0 {
		t.Errorf("%d times more were in than the limit allows", x.above)
	}
	if x.refused.Load() == 0 || x.most < least {
		t.Errorf("the room was never full (%d at most): the test shows nothing", x.most)
	}
	for i := range x.limit {
		m := s.dialTo(0)
		poll(t, fmt.Sprintf("seat %d of %d can be had", i+1, x.limit), func() bool { return m.joins("r") == "" })
	}
	if code := s.dialTo(0).joins("r"); code != "room_full" {
		t.Errorf("one more is told %q", code)
	}
}
