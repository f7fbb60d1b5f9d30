package rooms

import (
	"cmp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Pages of rooms by name. The order is that of the shards, and of the names in each. The shard of a name is the same in every
// process, so that the pages of several can be merged.

// Shards is the number of parts of an index.
const Shards = shardCount

// ShardOf is the part that has a room.
func ShardOf(name string) int { return int(xxhash.Sum64String(name) % shardCount) }

// NameCursor is a place in the order of all rooms. The zero NameCursor is the beginning. After is the last room before the
// place, "" at the beginning of the shard.
type NameCursor struct {
	Shard int
	After string
}

// PageByName calls f for the rooms behind a place whose names begin with prefix, in order, until f returns false or it has
// looked at examineMax rooms and is at the end of a shard. It returns the place behind the last room that f was called for,
// or that it looked at; more is false at the end of the index. It reads one shard at a time, so a room that is there all the
// time is on exactly one page. f runs without a lock. Any goroutine.
func (x *Index) PageByName(from NameCursor, prefix string, examineMax int, f func(*Room) bool) (next NameCursor, more bool) {
	var list []*Room
	for ; from.Shard >= 0 && from.Shard < shardCount; from = (NameCursor{Shard: from.Shard + 1}) {
		if examineMax <= 0 {
			return from, true
		}
		h := &x.shards[from.Shard]
		list = list[:0]
		h.mu.RLock()
		examineMax -= 1 + len(h.rooms)
		for name, r := range h.rooms {
			if name > from.After && strings.HasPrefix(name, prefix) {
				list = append(list, r)
			}
		}
		h.mu.RUnlock()
		slices.SortFunc(list, func(a, b *Room) int { return cmp.Compare(a.name, b.name) })
		for _, r := range list {
			if !f(r) {
				return NameCursor{from.Shard, r.name}, true
			}
		}
	}
	return NameCursor{}, false
}
