package fanout

import (
	"encoding/json"
	"slices"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/internal/users"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// This worker's part of lists of users and rooms, as it answers a worker that asks for a page.

// Bounds of an answer.
const (
	examineMax  = 50_000   // rooms that are looked at for one answer
	AnswerBytes = 64 << 10 // the size at which an answer ends
)

// AnswerUserCounts says how many open connections each of several users has here.
func (x *Rooms) AnswerUserCounts(r *fleet.Reader) []byte {
	var w fleet.Writer
	for _, name := range r.Texts() {
		w.Number(uint64(x.Users.Count(name)))
	}
	return w.B
}

// AnswerUserNames is a page of users, of at most rowsMax.
func (x *Rooms) AnswerUserNames(r *fleet.Reader, rowsMax uint64) []byte {
	var q fleet.NamesQuestion
	if q.Read(r); r.Bad {
		return nil
	}
	rows, next, more := x.Users.Page(nil, users.Cursor{Shard: int(q.Shard), After: q.After}, int(min(max(q.Max, 1), rowsMax)))
	b := fleet.NamesPage{More: more, Shard: uint64(next.Shard), After: next.After}.AppendTo(nil)
	for _, row := range rows {
		b = fleet.UserRow{User: row.User, Connections: uint64(row.Connections)}.AppendTo(b)
	}
	return b
}

// AnswerRoomNames is a page of rooms.
func (x *Rooms) AnswerRoomNames(r *fleet.Reader) []byte {
	var q fleet.NamesQuestion
	if q.Read(r); r.Bad {
		return nil
	}
	var list []byte
	n := uint64(0)
	next, more := x.Index.PageByName(rooms.NameCursor{Shard: int(q.Shard), After: q.After}, q.Prefix, examineMax, func(r *rooms.Room) bool {
		list = RowOf(r).AppendTo(list)
		n++
		return n < q.Max && len(list) < AnswerBytes
	})
	return append(fleet.NamesPage{More: more, Shard: uint64(next.Shard), After: next.After}.AppendTo(nil), list...)
}

// AppendRoom appends what is known here of a room; nothing if it is not here.
func (x *Rooms) AppendRoom(dst, name []byte) []byte {
	if r := x.Index.Find(name); r != nil {
		return RowOf(r).AppendTo(dst)
	}
	return dst
}

// RowOf describes a room for a list.
func RowOf(r *rooms.Room) fleet.RoomRow {
	return fleet.RoomRow{Name: r.Name(), Members: uint64(r.Len()), CreatedAt: uint64(r.CreatedAt()), MaxMembers: uint64(r.Limit()),
		Metadata: r.Metadata()}
}

// RoomStats says how a room is.
//
// Owner: the caller.
type RoomStats struct {
	Name        string          `json:"name"`
	Connections int             `json:"connections"`
	CreatedAt   int64           `json:"created_at"` // seconds since the epoch
	MaxMembers  int             `json:"max_members"`
	Metadata    json.RawMessage `json:"metadata,omitempty"`
	History     *HistoryStats   `json:"history,omitempty"` // nil: the room has none
}

// HistoryStats says how a history is: the position of the newest message, and how many are kept.
type HistoryStats struct {
	rooms.Position
	Messages int `json:"messages"`
}

// StatsOf describes a room, with its members on all workers.
func StatsOf(r *rooms.Room) RoomStats {
	return RoomStats{Name: r.Name(), Connections: r.Len() + r.Away(), CreatedAt: r.CreatedAt(),
		MaxMembers: r.Limit(), Metadata: slices.Clip(r.Metadata()), History: historyStats(r)}
}

func historyStats(r *rooms.Room) *HistoryStats {
	h := r.History()
	if h == nil {
		return nil
	}
	top, kept := h.Kept()
	return &HistoryStats{top, kept}
}

// AddHistories completes rooms of a list with their histories, as far as this worker has them.
func AddHistories(here *rooms.Index, list []RoomStats) {
	if !here.AnyHistory() {
		return
	}
	for i := range list {
		if r := here.FindString(list[i].Name); r != nil {
			list[i].History = historyStats(r)
		}
	}
}

// AnswerRooms lists rooms from a place in the index on, and returns where to continue; 0: nowhere.
func (x *Rooms) AnswerRooms(r *fleet.Reader) []byte {
	from := int(r.Number())
	var list []byte
	next := x.Index.RangeFrom(from, func(r *rooms.Room) {
		list = RowOf(r).AppendTo(list)
	}, func() bool { return len(list) < AnswerBytes })
	return append((&fleet.Writer{}).Number(uint64(next)).B, list...)
}

// ReadRoomStats reads a room of such a list.
func ReadRoomStats(r *fleet.Reader) RoomStats {
	var row fleet.RoomRow
	row.Read(r)
	one := RoomStats{Name: row.Name, Connections: int(row.Members), CreatedAt: int64(row.CreatedAt), MaxMembers: int(row.MaxMembers)}
	if len(row.Metadata) > 0 {
		one.Metadata = append(json.RawMessage(nil), row.Metadata...)
	}
	return one
}

// Add adds what another worker knows of the room.
func (r *RoomStats) Add(o *RoomStats) {
	r.Connections += o.Connections
	r.CreatedAt = min(r.CreatedAt, o.CreatedAt)
	r.MaxMembers = max(r.MaxMembers, o.MaxMembers)
	if r.Metadata == nil {
		r.Metadata = o.Metadata
	}
}

// AddTo adds the members of a room on one worker to those on others.
func (r RoomStats) AddTo(all map[string]*RoomStats) {
	if old := all[r.Name]; old != nil {
		old.Add(&r)
		return
	}
	all[r.Name] = &r
}

// ConnsAt lists the open connections of this worker at an address by loop, each once. Any goroutine.
func (x *Rooms) ConnsAt(a *fleet.Address) (lists [][]*turn.Conn) {
	out := x.Users.PlacesOf(x.Link.Own(a.Except), a.ExceptUsers)
	var places []ident.Place
	switch {
	case a.Everybody:
		lists, _ = x.chosen(func(*Conn) bool { return true }, out)
		return lists
	case a.Key != "":
		lists, _ = x.chosen(x.Above.HasAttribute(a.Key, a.Value), out)
		return lists
	case len(a.Rooms) > 0:
		for _, r := range roomsOf(x.Index.FindString, a.Rooms) {
			places = r.Members(places)
		}
	default:
		places = x.Users.PlacesOf(x.Link.Own(a.Conns), a.Users)
	}
	lists, _ = (&publication{rooms: x}).connsAt(places, out)
	return lists
}
