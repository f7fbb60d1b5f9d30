package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/protocol/message"
)

// A list comes in pages, or as a stream of lines that is made of pages. Who asks holds one of the places for requests that ask
// workers only while a page is asked for, and not while the client reads it.

// list is a list that a request asks for.
type list struct {
	name  string // of the rows in the answer
	fetch func(ctx context.Context, after string, limit int) (page, error)
}

// page is a part of a list.
type page struct {
	rows  []any
	next  string // "" at the end
	count *int   // of all rows of the list, where it is known
}

// rowsOf makes rows of a page of any type.
func rowsOf[T any](list []T) (rows []any) {
	for i := range list {
		rows = append(rows, &list[i])
	}
	return rows
}

// lists makes the operation of a route that lists.
func lists(prepare func(s *Server, c *call, q *readRequest) (*list, *problem)) func(s *Server, c *call) ([]byte, *problem) {
	return func(s *Server, c *call) ([]byte, *problem) {
		var q readRequest
		if wrong := c.route.reads.decode(c.object, &q); wrong != nil {
			return nil, wrong
		}
		if c.lines && q.limit > 0 && q.sort == "" {
			return nil, invalid([]fault{{c.at + "/limit", "a stream has no limit: all of the list follows"}})
		}
		l, wrong := prepare(s, c, &q)
		if wrong != nil {
			return nil, wrong
		}
		if c.lines {
			select {
			case s.streams <- struct{}{}:
				c.stream = &stream{server: s, call: c, request: &q, list: l}
			default:
				return nil, &problem{code: overloaded, detail: strconv.Itoa(streamsMax) + " streams are under way"}
			}
		}
		if q.limit == 0 && !c.lines {
			q.limit = limitUsual
		} else if q.limit == 0 {
			q.limit = limitMax
		}
		first, partial, wrong := s.page(c, &q, l)
		switch {
		case wrong != nil && c.lines:
			c.stream.release()
			return nil, wrong
		case wrong != nil:
			return nil, wrong
		case c.lines:
			c.stream.page, c.stream.partial = first, partial
			return nil, nil
		}
		return first.encode(s, l.name, partial)
	}
}

// page fetches one page. An incomplete one is a problem where the request demands a complete one.
func (s *Server) page(c *call, q *readRequest, l *list) (p page, partial *engine.PartialError, wrong *problem) {
	wrong = s.ask(c, func(ctx context.Context) (err error) {
		p, err = l.fetch(ctx, q.after, q.limit)
		partial, err = q.tolerate(err)
		return err
	})
	return p, partial, wrong
}

// errIncomplete is the error of a read that demands a complete answer.
var errIncomplete = errors.New("a worker did not answer in time, and the request demands a complete answer")

// tolerate takes the error of workers that did not answer out of err, unless the request demands a complete answer.
func (q *readRequest) tolerate(err error) (*engine.PartialError, error) {
	partial, ok := errors.AsType[*engine.PartialError](err)
	switch {
	case ok && q.complete:
		return nil, errIncomplete
	case ok:
		return partial, nil
	}
	return nil, err
}

// encode makes the answer of a page.
func (p *page) encode(s *Server, name string, partial *engine.PartialError) ([]byte, *problem) {
	dst := fmt.Appendf(nil, `{"%s":[`, name)
	for i, row := range p.rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = message.Encode(dst, row); err != nil {
			return nil, &problem{code: internal, detail: "a row cannot be encoded: " + err.Error()}
		}
	}
	dst = append(dst, ']')
	if p.count != nil {
		dst = fmt.Appendf(dst, `,"count":%d`, *p.count)
	}
	if p.next != "" {
		dst = message.AppendString(append(dst, `,"next":`...), p.next)
	}
	return append(s.appendPartial(dst, partial), '}'), nil
}

// users lists users that have connections, or counts the connections of those that are named.
func users(s *Server, c *call, q *readRequest) (*list, *problem) {
	if wrong := c.key.addressesAll("users"); wrong != nil {
		return nil, wrong
	}
	if q.users != nil && (q.after != "" || q.limit > 0) {
		return nil, invalid([]fault{{c.at + "/user", "users that are named come in one answer: give neither after nor limit"}})
	}
	return &list{"users", func(ctx context.Context, after string, limit int) (p page, err error) {
		var rows []engine.UserCount
		if q.users != nil {
			rows, err = s.engine.Everywhere().Users(ctx, q.users)
		} else {
			rows, p.next, err = s.engine.Everywhere().UsersPage(ctx, after, limit)
		}
		p.rows = rowsOf(rows)
		return p, err
	}}, nil
}

// roomRow is a room in an answer.
//
// Owner: one goroutine.
type roomRow struct {
	Room       string `json:"room"`
	Members    int    `json:"members"`
	CreatedAt  string `json:"created_at,omitempty"`
	MaxMembers int    `json:"max_members"`
	Metadata   raw    `json:"metadata,omitempty"`

	History *engine.HistoryStats `json:"history,omitempty"`
}

func rowOf(r *engine.RoomStats) *roomRow {
	row := &roomRow{Room: r.Name, Members: r.Connections, MaxMembers: r.MaxMembers, Metadata: raw(r.Metadata), History: r.History}
	if r.CreatedAt > 0 {
		row.CreatedAt = timeText(r.CreatedAt * 1000)
	}
	return row
}

// roomList lists the rooms that match, and that the key is for.
func roomList(s *Server, c *call, q *readRequest) (*list, *problem) {
	chosen := engine.RoomsQuery{}
	if q.match != "" {
		chosen.Prefix, _, _ = strings.Cut(q.match, "*")
	}
	pattern, _ := access.ParsePattern(q.match) // it was checked, or is empty
	if q.match != "" || c.key.rooms != nil {
		chosen.Match = func(room string) bool { return (q.match == "" || pattern.Match(room)) && c.key.mayRoom(room) }
	}
	return &list{"rooms", func(ctx context.Context, after string, limit int) (p page, err error) {
		rows, next, err := s.engine.Everywhere().RoomsPage(ctx, chosen, after, limit)
		p.next = next
		for i := range rows {
			p.rows = append(p.rows, rowOf(&rows[i]))
		}
		return p, err
	}}, nil
}

// memberList lists the members of a room.
func memberList(s *Server, c *call, q *readRequest) (*list, *problem) {
	if wrong := c.seesRoom(q.room); wrong != nil {
		return nil, wrong
	}
	return &list{"members", func(ctx context.Context, after string, limit int) (page, error) {
		m, err := s.engine.Everywhere().MembersPage(ctx, q.room, after, limit)
		return page{rows: rowsOf(m.Members), next: m.Next, count: &m.Count}, err
	}}, nil
}

// seesRoom refuses a room that is none, or that the key is not for.
func (c *call) seesRoom(room string) *problem {
	if message.ValidRoom([]byte(room)) != message.OK {
		return &problem{code: invalidRoom, faults: []fault{{c.at + "/room", roomRule}}}
	}
	return c.key.isFor(room)
}
