// Package lists puts a page together from the pages of several workers.
//
// What it refuses to do: I/O, and knowing what a list is of.
//
// Start reading at [Place] and [Merge].
package lists

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"slices"
)

// A Place is a place in the order of all names: by shard, then by name. The shard of a name is the same on every worker. The
// zero Place is the beginning. After is the last name before the place, "" at the beginning of the shard.
type Place struct {
	Shard int
	After string
}

// Compare orders places.
func (p Place) Compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Shard, q.Shard), cmp.Compare(p.After, q.After))
}

// ErrCursor is the error for a text that is no cursor of the list.
var ErrCursor = errors.New("the cursor is none that this list gave: use the next of the page before, unchanged")

// A Kind names a list, so that the cursor of one list is refused by another.
type Kind byte

// The lists.
const (
	Users       Kind = 'u'
	Rooms       Kind = 'r'
	Connections Kind = 'c'
	Members     Kind = 'm'
)

const cursorBytesMax = 4096 // of a cursor's text; no name is so long

// Cursor is a place as a text without meaning to clients.
func (k Kind) Cursor(p Place) string {
	return encode(append(binary.AppendUvarint([]byte{byte(k)}, uint64(p.Shard)), p.After...))
}

// Place reads a cursor; "" is the beginning. shardOf tells the shard of a name, below shards. Errors: [ErrCursor].
func (k Kind) Place(text string, shards int, shardOf func(string) int) (p Place, err error) {
	if text == "" {
		return p, nil
	}
	raw, err := decode(k, text)
	if err != nil {
		return p, err
	}
	shard, n := binary.Uvarint(raw)
	if n <= 0 || shard >= uint64(shards) {
		return p, ErrCursor
	}
	p = Place{int(shard), string(raw[n:])}
	if p.After != "" && shardOf(p.After) != p.Shard || k.Cursor(p) != text {
		return Place{}, ErrCursor
	}
	return p, nil
}

// Slot is a place in the order of all connections or members: by worker, by loop, then by a number of the loop.
type Slot struct{ Worker, Loop, At uint64 }

// SlotCursor is a slot as a text without meaning to clients.
func (k Kind) SlotCursor(s Slot) string {
	raw := []byte{byte(k)}
	for _, n := range []uint64{s.Worker, s.Loop, s.At} {
		raw = binary.AppendUvarint(raw, n)
	}
	return encode(raw)
}

// Slot reads a cursor. Errors: [ErrCursor], also for a worker above 65535, a loop above 255 and a number above 4294967295.
func (k Kind) Slot(text string) (s Slot, err error) {
	raw, err := decode(k, text)
	if err != nil {
		return s, err
	}
	for _, part := range []struct {
		to   *uint64
		most uint64
	}{{&s.Worker, 1<<16 - 1}, {&s.Loop, 1<<8 - 1}, {&s.At, 1<<32 - 1}} {
		n, size := binary.Uvarint(raw)
		if size <= 0 || n > part.most {
			return Slot{}, ErrCursor
		}
		*part.to, raw = n, raw[size:]
	}
	if k.SlotCursor(s) != text {
		return Slot{}, ErrCursor
	}
	return s, nil
}

func encode(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// decode returns what stands behind the kind.
func decode(k Kind, text string) ([]byte, error) {
	if len(text) > cursorBytesMax {
		return nil, ErrCursor
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(raw) == 0 || raw[0] != byte(k) {
		return nil, ErrCursor
	}
	return raw[1:], nil
}

// Part is one worker's part of a page: its rows in order. With More, it has listed all names up to Until and knows of others
// behind.
type Part[T any] struct {
	Rows  []T
	More  bool
	Until Place
}

// Page is a page of all workers. With More, the next page begins behind Next.
type Page[T any] struct {
	Rows []T
	More bool
	Next Place
}

// Merge makes a page of up to limit rows, at least 1, of all parts. place says where a row stands. add adds the row of one
// worker to the row of the same name. A row is on the page only when all parts have listed its name.
func Merge[T any](parts []Part[T], limit int, place func(*T) Place, add func(sum *T, row *T)) (p Page[T]) {
	var all []T
	for _, part := range parts {
		all = append(all, part.Rows...)
		if part.More && (!p.More || part.Until.Compare(p.Next) < 0) {
			p.More, p.Next = true, part.Until
		}
	}
	slices.SortStableFunc(all, func(a, b T) int { return place(&a).Compare(place(&b)) })
	for i := range all {
		at := place(&all[i])
		if p.More && at.Compare(p.Next) > 0 {
			return p
		}
		last := len(p.Rows) - 1
		switch {
		case last >= 0 && place(&p.Rows[last]) == at:
			add(&p.Rows[last], &all[i])
		case last+1 == limit:
			p.More, p.Next = true, place(&p.Rows[last])
			return p
		default:
			p.Rows = append(p.Rows, all[i])
		}
	}
	return p
}
