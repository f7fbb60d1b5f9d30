package ledger

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// heard collects a worker's calls of RoomChanged.
type heard struct {
	mu   sync.Mutex
	news []string
}

func (h *heard) options(o *Options) {
	o.RoomChanged = func(r Room, change RoomChange) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.news = append(h.news, fmt.Sprintf("%s %d %s", r.Name, r.MembersMax, [...]string{"created", "updated", "deleted"}[change]))
	}
}

func (h *heard) contains(want string) bool { return h.count(want) > 0 }

func (h *heard) count(want string) (times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.news {
		if n == want {
			times++
		}
	}
	return times
}

func TestRooms(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	var news heard
	a, c := b.open(t, 1), b.open(t, 2, news.options)
	name := "lobby *.> \x00 \u4f60"
	create := func(l *Ledger, limit uint32) error {
		return await(t, func(done func(error)) error {
			return l.Rooms.Create(Room{Name: name, MembersMax: limit, Metadata: []byte("m")}, done)
		})
	}
	for round := range uint32(5) {
		// The same name again, with the marker of its deletion still there.
		is(t, create(a, round), nil)
		if _, ok := a.Rooms.Find(name); !ok {
			t.Error("its creator does not know it")
		}
		is(t, create(c, 9), ErrExists)
		eventually(t, "the other hears of it", func() bool { return news.contains(fmt.Sprintf("%s %d created", name, round)) })
		must(t, func(done func(error)) error { return c.Rooms.Delete(name, done) })
		is(t, await(t, func(done func(error)) error { return c.Rooms.Delete(name, done) }), ErrUnknown)
		eventually(t, "both forget it", func() bool { return len(a.Rooms.All())+len(c.Rooms.All()) == 0 })
		if !news.contains(fmt.Sprintf("%s %d deleted", name, round)) {
			t.Error("deletion was not told")
		}
	}
}

// Updates of several workers at once all count, and each is told as one; a room that was deleted is not updated.
func TestUpdateRooms(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	var news heard
	a, c := b.open(t, 1), b.open(t, 2, news.options)
	must(t, func(done func(error)) error { return a.Rooms.Create(Room{Name: "r", MembersMax: 1}, done) })
	eventually(t, "the other hears of it", func() bool { return news.contains("r 1 created") })
	const each = 20
	var all sync.WaitGroup
	for range each {
		for _, l := range []*Ledger{a, c} {
			all.Add(1)
			if err := l.Rooms.Update("r", func(r *Room) { r.MembersMax++; r.Metadata = []byte("m") }, func(err error) {
				is(t, err, nil)
				all.Done()
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	all.Wait()
	for _, l := range []*Ledger{a, c} {
		eventually(t, "all updates are known", func() bool {
			r, _ := l.Rooms.Find("r")
			return r.MembersMax == 2*each+1 && string(r.Metadata) == "m"
		})
	}
	eventually(t, "the last one is told", func() bool { return news.contains(fmt.Sprintf("r %d updated", 2*each+1)) })
	update := func(l *Ledger, name string, change func(*Room)) error {
		return await(t, func(done func(error)) error { return l.Rooms.Update(name, change, done) })
	}
	is(t, update(a, "r", func(r *Room) { r.Metadata = make([]byte, metadataMax+1) }), errMetadata)
	must(t, func(done func(error)) error { return c.Rooms.Delete("r", done) })
	is(t, update(a, "r", func(*Room) {}), ErrUnknown)
	is(t, update(c, "never", func(*Room) {}), ErrUnknown)
	if news.count("r 1 created") != 1 {
		t.Error("an update is told as a new room")
	}
}

// A room that is created, deleted and created again at once is another room for a worker that hears of the end alone.
func TestCreatedAgainIsAnother(t *testing.T) {
	t.Parallel()
	a := startBus(t).open(t, 1)
	var last int64
	for range 50 {
		must(t, func(done func(error)) error { return a.Rooms.Create(Room{Name: "r"}, done) })
		r, _ := a.Rooms.Find("r")
		if r.CreatedAt == last {
			t.Fatal("two rooms were created at one time")
		}
		last = r.CreatedAt
		must(t, func(done func(error)) error { return a.Rooms.Delete("r", done) })
	}
}

// Of many calls that create a room at once, one succeeds, also over a restart of the bus.
func TestCreateOnce(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	var workers []*Ledger
	for i := range 4 {
		workers = append(workers, b.open(t, ident.Worker(i+1)))
	}
	const rooms = 200
	var mu sync.Mutex
	won := map[string]int{}
	var all sync.WaitGroup
	for n := range rooms {
		name := fmt.Sprint("room ", n)
		for _, l := range workers {
			all.Add(1)
			err := l.Rooms.Create(Room{Name: name}, func(err error) {
				if err == nil {
					mu.Lock()
					won[name]++
					mu.Unlock()
				} else if err != ErrExists {
					t.Error(err)
				}
				all.Done()
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if n == rooms/2 {
			b.restart()
		}
	}
	all.Wait()
	for n := range rooms {
		if name := fmt.Sprint("room ", n); won[name] != 1 {
			t.Errorf("%s was created %d times", name, won[name])
		}
	}
	for _, l := range workers {
		eventually(t, "every worker knows all rooms", func() bool { return len(l.Rooms.All()) == rooms })
	}
}

// After an absence that began in the middle of a read, too, the feed reads all records anew.
func TestAbsenceWhileReading(t *testing.T) {
	t.Parallel()
	l := startBus(t).open(t, 1)
	gone := Room{Name: "deleted while nobody listened"}
	begun := make(chan struct{})
	l.post(func() {
		defer close(begun)
		l.Rooms.known[gone.Name] = knownRoom{room: gone, revision: 1}
		l.feed.read()
		l.feed.lastRead = l.now.Add(-time.Minute)
	})
	<-begun
	eventually(t, "the room is forgotten", func() bool { _, known := l.Rooms.Find(gone.Name); return !known })
}

// A created room's history reaches all workers, with its creation and with an update, and an update that changes nothing else is
// told.
func TestRoomsHaveHistories(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	var news heard
	a, c := b.open(t, 1), b.open(t, 2, news.options)
	first, second := History{Messages: 10, Bytes: 1 << 20, Age: time.Minute, Slow: 2}, History{Messages: -1}
	must(t, func(done func(error)) error {
		return a.Rooms.Create(Room{Name: "r", Metadata: []byte("m"), History: &first}, done)
	})
	has := func(want *History) bool {
		r, ok := c.Rooms.Find("r")
		return ok && r.History.same(want) && string(r.Metadata) == "m"
	}
	eventually(t, "the other knows the history", func() bool { return has(&first) })
	must(t, func(done func(error)) error { return c.Rooms.Update("r", func(r *Room) { r.MembersMax = 3 }, done) })
	if !has(&first) {
		t.Error("an update of the limit has changed the history")
	}
	must(t, func(done func(error)) error { return a.Rooms.Update("r", func(r *Room) { r.History = &second }, done) })
	eventually(t, "the other knows the new history", func() bool { return has(&second) && news.count("r 3 updated") == 2 })
}

// A record without a history is as programs wrote it that know none; a record whose history is cut off is damaged.
func TestRoomRecords(t *testing.T) {
	old := append([]byte{1}, make([]byte, 16+8)...)
	old = append(old, 0, 0, 0, 7, 'm')
	r, m, err := decodeRoom("r", old)
	if err != nil || r.MembersMax != 7 || string(r.Metadata) != "m" || r.History != nil {
		t.Errorf("%+v, %v", r, err)
	}
	if now := encodeRoom(r, m); string(now) != string(old) {
		t.Errorf("a room without history is written as %q, was %q", now, old)
	}
	r.Metadata, r.History = nil, &History{Messages: 1, Bytes: 2, Age: 3, Slow: 1}
	whole := encodeRoom(r, m)
	if _, _, err := decodeRoom("r", whole[:len(whole)-1]); err != errRoom {
		t.Errorf("half a history is read: %v", err)
	}
}
