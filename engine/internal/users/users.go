// Package users finds a worker's connections by the user that they belong to.
//
// What it refuses to do: know a connection (it keeps places), count users of other workers, and limit how many connections a
// user has. Start reading at [Index].
package users

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/parleyd/parley/protocol/ident"
)

// Shards is the number of parts of an index. A user is in the same part on every worker, so that lists of several workers can
// be merged part by part, and a page of users never needs more than a few parts.
const Shards = 4096

// Index is the users of a worker. A part is a slice in the order of the names: it costs 48 bytes for a user with one
// connection, whose name it shares with the connection. A map would cost three times as much in a part of few users, and
// gives no order to page through. Its methods are for any goroutine.
//
// Owner: shared (mutex: each shard's).
type Index struct {
	shards [Shards]shard
	users  atomic.Int64
}

// shard is one part of the index.
//
// Owner: shared (mutex: mu).
type shard struct {
	mu   sync.Mutex
	list []entry
}

// entry is a user with at least one connection.
type entry struct {
	user  string
	first ident.Place
	more  *[]ident.Place // nil for one connection
}

// ShardOf is the part that has a user.
func ShardOf(user string) int { return int(xxhash.Sum64String(user) % Shards) }

func (s *shard) find(user string) (i int, found bool) {
	return slices.BinarySearchFunc(s.list, user, func(e entry, user string) int { return cmp.Compare(e.user, user) })
}

// Add notes that a connection belongs to a user. A connection without a user is not kept.
func (x *Index) Add(user string, p ident.Place) {
	if user == "" {
		return
	}
	s := &x.shards[ShardOf(user)]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(user)
	if !found {
		s.list = slices.Insert(s.list, i, entry{user: user, first: p})
		x.users.Add(1)
		return
	}
	e := &s.list[i]
	if e.more == nil {
		e.more = new([]ident.Place)
	}
	*e.more = append(*e.more, p)
}

// Remove notes that a connection does not belong to a user any more. A connection that is not there is no error.
func (x *Index) Remove(user string, p ident.Place) {
	s := &x.shards[ShardOf(user)]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(user)
	if !found {
		return
	}
	switch e := &s.list[i]; {
	case e.more != nil:
		e.without(p)
	case e.first == p:
		s.list = slices.Delete(s.list, i, i+1)
		x.users.Add(-1)
		s.shrink()
	}
}

// without removes one of several connections.
func (e *entry) without(p ident.Place) {
	list := *e.more
	last := len(list) - 1
	if e.first == p {
		e.first = list[last]
	} else if at := slices.Index(list, p); at >= 0 {
		list[at] = list[last]
	} else {
		return
	}
	if *e.more = list[:last]; last == 0 {
		e.more = nil
	}
}

// shrink gives memory back after many users have left. Under mu.
func (s *shard) shrink() {
	if n := len(s.list); cap(s.list) > 4*n+8 {
		s.list = slices.Clone(s.list)
	}
}

// Places appends the places of a user's connections to dst, in no order.
func (x *Index) Places(dst []ident.Place, user string) []ident.Place {
	s := &x.shards[ShardOf(user)]
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, found := s.find(user); found {
		dst = append(dst, s.list[i].first)
		if more := s.list[i].more; more != nil {
			dst = append(dst, *more...)
		}
	}
	return dst
}

// PlacesOf appends the places of the connections of several users.
func (x *Index) PlacesOf(dst []ident.Place, users []string) []ident.Place {
	for _, user := range users {
		dst = x.Places(dst, user)
	}
	return dst
}

// Count is the number of a user's connections.
func (x *Index) Count(user string) int {
	s := &x.shards[ShardOf(user)]
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(user)
	if !found {
		return 0
	}
	return s.list[i].count()
}

func (e *entry) count() int {
	if e.more == nil {
		return 1
	}
	return 1 + len(*e.more)
}

// Len is the number of users.
func (x *Index) Len() int { return int(x.users.Load()) }

// A Cursor is a place in the order of all users: by part, then by name. The zero Cursor is the beginning. After is the last
// user before the place, "" at the beginning of the part.
type Cursor struct {
	Shard int
	After string
}

// Row is a user of a page.
type Row struct {
	User        string
	Connections int
}

// Page appends up to limit users, at least 1, behind a place to dst, and returns where the next page begins; more is false at the end. It
// locks one part at a time: a user that is there all the time is on exactly one page.
func (x *Index) Page(dst []Row, from Cursor, limit int) (rows []Row, next Cursor, more bool) {
	for ; from.Shard >= 0 && from.Shard < Shards; from = (Cursor{Shard: from.Shard + 1}) {
		before, full := len(dst), false
		if dst, full = x.shards[from.Shard].page(dst, from.After, limit); full {
			if len(dst) > before {
				from.After = dst[len(dst)-1].User
			}
			return dst, from, true
		}
	}
	return dst, Cursor{}, false
}

// page appends a part's users; full says that the part has more of them than the page has space.
func (s *shard) page(dst []Row, after string, limit int) (rows []Row, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := s.find(after)
	if found {
		i++
	}
	for ; i < len(s.list); i++ {
		if len(dst) >= limit {
			return dst, true
		}
		dst = append(dst, Row{strings.Clone(s.list[i].user), s.list[i].count()})
	}
	return dst, false
}
