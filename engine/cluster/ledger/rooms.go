package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Room is a created room.
//
// Owner: immutable.
type Room struct {
	// Name is any text.
	Name string
	// MembersMax is the number of seats, 0 for no limit of its own.
	MembersMax uint32
	// Metadata is for the application.
	Metadata []byte
	// CreatedAt is in milliseconds since 1970.
	CreatedAt int64
	// History bounds the messages that the room keeps; nil: as the server's settings say.
	History *History
}

// History bounds the messages that a room keeps, in the form of package rooms.
//
// Owner: immutable.
type History struct {
	Messages, Bytes int32 // less than 0 messages: the room has no history
	Age             time.Duration
	Slow            uint8
}

// RoomChange says what became of a created room.
type RoomChange uint8

// The changes of a created room.
const (
	RoomCreated RoomChange = iota // an earlier room of the same name has been deleted since
	RoomUpdated
	RoomDeleted
)

// Rooms are the created rooms. Every worker knows all of them.
//
// Owner: shared (mutex: mu).
type Rooms struct {
	l     *Ledger
	mu    sync.RWMutex
	known map[string]knownRoom // by name
}

type knownRoom struct {
	room     Room
	revision uint64
	lost     bool // gone from the bus, and being rewritten
}

func newRooms(l *Ledger) *Rooms { return &Rooms{l: l, known: make(map[string]knownRoom)} }

const (
	roomVersion = 1
	roomHeader  = 1 + 16 + 8 + 4
	// A record of historyVersion has a history between the header and the metadata. A record without one is of roomVersion, so
	// that programs which know no histories can read it.
	historyVersion = 2
	historyBytes   = 4 + 4 + 8 + 1
	metadataMax    = 64 << 10
	nameBytesMax   = 255
)

var (
	errName     = fmt.Errorf("room's name must have 1 to %d bytes", nameBytesMax)
	errMetadata = fmt.Errorf("metadata is too large: at most %d bytes", metadataMax)
	errRoom     = errors.New("decode room: not a record of this version")
)

func encodeRoom(r Room, m mark) []byte {
	b := make([]byte, 0, roomHeader+historyBytes+len(r.Metadata))
	b = append(b, roomVersion)
	b = append(b, m[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.CreatedAt))
	b = binary.BigEndian.AppendUint32(b, r.MembersMax)
	if h := r.History; h != nil {
		b[0] = historyVersion
		b = binary.BigEndian.AppendUint32(b, uint32(h.Messages))
		b = binary.BigEndian.AppendUint32(b, uint32(h.Bytes))
		b = binary.BigEndian.AppendUint64(b, uint64(h.Age))
		b = append(b, h.Slow)
	}
	return append(b, r.Metadata...)
}

func decodeRoom(name string, b []byte) (r Room, m mark, err error) {
	if len(b) < roomHeader || b[0] != roomVersion && b[0] != historyVersion {
		return r, m, errRoom
	}
	copy(m[:], b[1:])
	r.CreatedAt = int64(binary.BigEndian.Uint64(b[17:]))
	r.MembersMax = binary.BigEndian.Uint32(b[25:])
	r.Name, r.Metadata = name, b[roomHeader:]
	if b[0] == historyVersion {
		h := r.Metadata
		if len(h) < historyBytes {
			return r, m, errRoom
		}
		r.History = &History{Messages: int32(binary.BigEndian.Uint32(h)), Bytes: int32(binary.BigEndian.Uint32(h[4:])),
			Age: time.Duration(binary.BigEndian.Uint64(h[8:])), Slow: h[16]}
		r.Metadata = h[historyBytes:]
	}
	return r, m, nil
}

// Create creates a room for all workers, exactly once: ErrExists if it exists. It sets CreatedAt. When done runs without an
// error, Find knows the room on this worker. After ErrAway the room may still be created; a repeated Create then fails with
// ErrExists. Any goroutine.
func (r *Rooms) Create(room Room, done func(error)) error {
	if err := room.check(); err != nil {
		return err
	}
	return r.l.accept(func() {
		p := r.l.promise(done)
		room.CreatedAt = r.l.unix()
		r.whenWhole(p, func() {
			m := r.l.mark()
			r.create(encodeName(room.Name), encodeRoom(room, m), m, p)
		})
	})
}

// check reports a room that does not fit into a record.
func (room *Room) check() error {
	switch {
	case room.Name == "" || len(room.Name) > nameBytesMax:
		return errName
	case len(room.Metadata) > metadataMax:
		return errMetadata
	}
	return nil
}

// same reports whether two histories are alike; either may be nil.
func (h *History) same(other *History) bool {
	return h == other || h != nil && other != nil && *h == *other
}

// whenWhole runs f once all known rooms are on the bus: for a caller, a room that is being rewritten exists.
func (r *Rooms) whenWhole(p *promise, f func()) {
	switch {
	case r.l.bucket(sharedBucket).whole:
		f()
	case !p.kept:
		r.l.after(marksAgain, func() { r.whenWhole(p, f) })
	}
}

func nameOf(token string) string {
	name, _ := decodeName(token) // of a token that encodeName made
	return name
}

// create tries revision 0 first: a room of this name was seldom deleted a moment ago. A room that is known but not on the
// bus was deleted or lost.
func (r *Rooms) create(token string, payload []byte, m mark, p *promise) {
	var at func(expect uint64)
	at = func(expect uint64) {
		s := &set{bucket: sharedBucket, key: "room." + token, expect: expect, payload: payload}
		s.done = func(revision uint64, err error) {
			if err == errConflict {
				r.l.get(sharedBucket, s.key, func(f found) {
					switch {
					case f.payload == nil:
						at(f.revision)
					case holds(f.payload, m):
						r.changed(token, f)
						p.keep(nil)
					default:
						r.changed(token, f)
						p.keep(ErrExists)
					}
				})
				return
			}
			if err == nil {
				r.changed(token, found{revision, payload})
			}
			p.keep(err)
		}
		r.l.set(s)
	}
	if _, known := r.known[nameOf(token)]; !known {
		at(0)
		return
	}
	r.l.get(sharedBucket, "room."+token, func(f found) {
		switch {
		case f.payload != nil:
			r.changed(token, f)
			p.keep(ErrExists)
		case f.revision != 0: // deleted a moment ago
			at(f.revision)
		default:
			r.l.bucket(sharedBucket).confirm(func(same bool) {
				if same {
					at(0)
					return
				}
				r.whenWhole(p, func() { r.create(token, payload, m, p) })
			})
		}
	})
}

// rewriteShared rewrites the records that all workers know. All workers do: the first write of each record counts.
func (l *Ledger) rewriteShared() {
	b, r := l.bucket(sharedBucket), l.Rooms
	turn, left := b.turn, 1
	written := func() {
		if left--; left == 0 && b.turn == turn {
			b.complete()
		}
	}
	l.life.rewrite()
	r.mu.Lock()
	for name, k := range r.known {
		k.lost = true
		r.known[name] = k
	}
	r.mu.Unlock()
	for name, k := range r.known {
		left++
		m := l.mark()
		r.put(encodeName(name), encodeRoom(k.room, m), written)
	}
	written()
	l.feed.begin()
}

// Update changes a created room on all workers: change gets it as it is, on the ledger's goroutine, perhaps several times, and
// must not change Name and CreatedAt. Metadata has 64 KiB at most. Errors: ErrUnknown if there is no such room. When done runs
// without an error, Find knows the change on this worker. Any goroutine.
func (r *Rooms) Update(name string, change func(*Room), done func(error)) error {
	return r.l.accept(func() { r.update(encodeName(name), change, r.l.promise(done)) })
}

func (r *Rooms) update(token string, change func(*Room), p *promise) {
	again := func() { r.update(token, change, p) }
	r.l.get(sharedBucket, "room."+token, func(f found) {
		if f.payload == nil {
			r.missing(token, p, again)
			return
		}
		room, _, err := decodeRoom(nameOf(token), f.payload)
		if err == nil {
			change(&room)
			err = room.check()
		}
		if err != nil {
			p.keep(err)
			return
		}
		m := r.l.mark()
		payload := encodeRoom(room, m)
		r.l.set(&set{bucket: sharedBucket, key: "room." + token, expect: f.revision, payload: payload, done: func(revision uint64, err error) {
			switch err {
			case nil:
				r.changed(token, found{revision, payload})
				p.keep(nil)
			case errConflict:
				r.updated(token, m, p, again)
			default:
				p.keep(err)
			}
		}})
	})
}

// updated looks whether the update with a mark was made, after a conflict; if another one was, it is made again.
func (r *Rooms) updated(token string, m mark, p *promise, again func()) {
	r.l.get(sharedBucket, "room."+token, func(f found) {
		if f.payload == nil || !holds(f.payload, m) {
			again()
			return
		}
		r.changed(token, f)
		p.keep(nil)
	})
}

// missing is what a change does whose room is not on the bus: it is made again if the room was deleted a moment ago, or lost
// and soon rewritten.
func (r *Rooms) missing(token string, p *promise, again func()) {
	if _, known := r.known[nameOf(token)]; !known || p.kept {
		p.keep(ErrUnknown)
		return
	}
	r.l.bucket(sharedBucket).check()
	r.l.feed.read()
	r.l.after(marksAgain, again)
}

// put rewrites a room, unless another worker has.
func (r *Rooms) put(token string, payload []byte, done func()) {
	s := &set{bucket: sharedBucket, key: "room." + token, payload: payload}
	s.done = func(revision uint64, err error) {
		switch err {
		case nil:
			r.changed(token, found{revision, payload})
		case errConflict:
			r.l.get(sharedBucket, s.key, func(f found) {
				r.changed(token, f)
				done()
			})
			return
		default:
			r.l.fault(err)
		}
		done()
	}
	r.l.set(s)
}

func holds(payload []byte, m mark) bool {
	_, was, err := decodeRoom("", payload)
	return err == nil && was == m
}

// Delete deletes a room for all workers: ErrUnknown if there is none. Any goroutine.
func (r *Rooms) Delete(name string, done func(error)) error {
	return r.l.accept(func() {
		r.remove(encodeName(name), r.l.promise(done), false)
	})
}

func (r *Rooms) remove(token string, p *promise, sent bool) {
	key := "room." + token
	r.l.get(sharedBucket, key, func(f found) {
		if f.payload == nil {
			if sent { // deleted by us, or by another worker at the same time
				p.keep(nil)
			} else {
				r.missing(token, p, func() { r.remove(token, p, false) })
			}
			return
		}
		if room, _, err := decodeRoom("", f.payload); err == nil && room.CreatedAt == r.l.unix() {
			// The next room of this name must have another CreatedAt: changed tells them apart by it.
			r.l.after(time.Millisecond, func() { r.remove(token, p, sent) })
			return
		}
		r.l.set(&set{bucket: sharedBucket, key: key, expect: f.revision, done: func(revision uint64, err error) {
			if err == errConflict {
				r.remove(token, p, true)
				return
			}
			if err == nil {
				r.changed(token, found{revision: revision})
			}
			p.keep(err)
		}})
	})
}

// Find returns a created room. Any goroutine.
func (r *Rooms) Find(name string) (Room, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	k, ok := r.known[name]
	return k.room, ok
}

// All returns all created rooms, in no order. Any goroutine.
func (r *Rooms) All() []Room {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make([]Room, 0, len(r.known))
	for _, k := range r.known {
		all = append(all, k.room)
	}
	return all
}

// changed takes a version of a room, unless a later one is known.
func (r *Rooms) changed(token string, f found) {
	name, err := decodeName(token)
	if err != nil {
		r.l.fault(fmt.Errorf("decode room's name: %w", err))
		return
	}
	was, had := r.known[name] // without the lock: only this goroutine writes it
	if had && was.revision >= f.revision && !was.lost {
		return
	}
	if f.payload == nil {
		r.forget(name)
		return
	}
	room, _, err := decodeRoom(name, f.payload)
	if err != nil {
		r.l.fault(err)
		return
	}
	r.mu.Lock()
	r.known[name] = knownRoom{room: room, revision: f.revision}
	r.mu.Unlock()
	switch {
	case !had || was.room.CreatedAt != room.CreatedAt:
		r.tell(room, RoomCreated)
	case was.room.MembersMax != room.MembersMax || !bytes.Equal(was.room.Metadata, room.Metadata) || !was.room.History.same(room.History):
		r.tell(room, RoomUpdated)
	} // else it is the same: it was lost and rewritten
}

func (r *Rooms) forget(name string) {
	was, had := r.known[name]
	if !had {
		return
	}
	r.mu.Lock()
	delete(r.known, name)
	r.mu.Unlock()
	r.tell(was.room, RoomDeleted)
}

// retain forgets the rooms that a read of all records up to a sequence did not find: they were deleted while the bus was
// away.
func (r *Rooms) retain(seen map[string]bool, next uint64) {
	for name, k := range r.known {
		if k.revision < next && !seen[encodeName(name)] && !k.lost {
			r.forget(name)
		}
	}
}

func (r *Rooms) tell(room Room, change RoomChange) {
	if r.l.opts.RoomChanged != nil {
		r.l.opts.RoomChanged(room, change)
	}
}
