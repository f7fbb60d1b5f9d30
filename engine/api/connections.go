package api

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/parleyd/parley/engine"
)

// connRow is a connection in an answer.
//
// Owner: one goroutine.
type connRow struct {
	ID           string         `json:"id"`
	User         string         `json:"user,omitempty"`
	Address      string         `json:"address"`
	ConnectedAt  string         `json:"connected_at"`
	LastActivity string         `json:"last_activity"`
	Rooms        []string       `json:"rooms"`
	Attributes   map[string]raw `json:"attributes"`
	BacklogBytes int            `json:"backlog_bytes"`
	Received     uint32         `json:"received"`
	Sent         uint32         `json:"sent"`
	Worker       *int           `json:"worker,omitempty"`
	Instance     uint16         `json:"instance"`
	Session      string         `json:"session"`
	Generation   int            `json:"generation"`
	TokenUntil   string         `json:"token_until,omitempty"`
}

// rowOfConn makes a row; nil if the key sees nothing of the connection. A key with rooms sees these rooms alone.
func (s *Server) rowOfConn(k *key, f *engine.ConnectionFacts) *connRow {
	row := &connRow{ID: f.ID, User: f.User, Address: f.Address, ConnectedAt: timeText(f.ConnectedAt), LastActivity: timeText(f.LastActivity),
		Rooms: f.Rooms, Attributes: f.Attributes, BacklogBytes: f.BacklogBytes, Received: f.Received, Sent: f.Sent, Worker: s.places.of(s.operator, f.Worker), Instance: f.Worker, Session: f.Session, Generation: f.Generation}
	if f.TokenUntil > 0 {
		row.TokenUntil = timeText(f.TokenUntil)
	}
	if row.Rooms == nil {
		row.Rooms = []string{}
	}
	if row.Attributes == nil {
		row.Attributes = map[string]raw{}
	}
	if k.rooms != nil {
		row.Rooms = slices.DeleteFunc(slices.Clone(row.Rooms), func(room string) bool { return !k.mayRoom(room) })
		if len(row.Rooms) == 0 {
			return nil
		}
	}
	return row
}

// orders are the values of sort.
var orders = map[string]engine.ConnectionOrder{"backlog": engine.ByBacklog, "idle": engine.ByIdle, "age": engine.ByAge}

// connections lists connections: those that a filter chooses, or the first in an order.
func connections(s *Server, c *call, q *readRequest) (*list, *problem) {
	filter, wrong := q.filter(c)
	if wrong != nil {
		return nil, wrong
	}
	rows := func(found []engine.ConnectionFacts) (p page) {
		for i := range found {
			if row := s.rowOfConn(c.key, &found[i]); row != nil {
				p.rows = append(p.rows, row)
			}
		}
		return p
	}
	if q.sort == "" {
		return &list{"connections", func(ctx context.Context, after string, limit int) (page, error) {
			found, next, err := s.engine.Everywhere().ConnectionsPage(ctx, filter, after, limit)
			p := rows(found)
			p.next = next
			return p, err
		}}, nil
	}
	order, ok := orders[q.sort]
	switch {
	case !ok:
		return nil, invalid([]fault{{c.at + "/sort", "give backlog, idle or age"}})
	case q.after != "" || filter != engine.ConnectionFilter{}:
		return nil, invalid([]fault{{c.at + "/sort", "the order is that of all connections: give no filter and no after"}})
	case c.key.rooms != nil:
		return nil, c.key.addressesAll("the order of all connections")
	}
	return &list{"connections", func(ctx context.Context, _ string, limit int) (page, error) {
		found, err := s.engine.Everywhere().ConnectionsTop(ctx, order, limit)
		return rows(found), err
	}}, nil
}

// filter reads the parameters that choose connections.
func (q *readRequest) filter(c *call) (f engine.ConnectionFilter, wrong *problem) {
	f.Room = q.room
	if q.room != "" {
		if wrong = c.seesRoom(q.room); wrong != nil {
			return f, wrong
		}
	}
	switch len(q.users) {
	case 0:
	case 1:
		f.User = q.users[0]
	default:
		return f, invalid([]fault{{c.at + "/user", "name one user"}})
	}
	if q.address != "" {
		address, err := netip.ParseAddr(q.address)
		if err != nil {
			return f, invalid([]fault{{c.at + "/address", "give an IP address without a port"}})
		}
		f.Address = address.Unmap().String()
	}
	if q.attribute != "" {
		name, value, _ := strings.Cut(q.attribute, ":")
		if name == "" || !json.Valid([]byte(value)) {
			return f, invalid([]fault{{c.at + "/attribute", `give a name, ":" and JSON, such as team:7 or team:"red"`}})
		}
		f.AttributeKey, f.AttributeValue = name, textOfJSON(value)
	}
	return f, nil
}

// textOfJSON is JSON that can be compared with ==.
type textOfJSON string

// MarshalJSON is the text itself.
func (t textOfJSON) MarshalJSON() ([]byte, error) { return []byte(t), nil }

// connection describes a connection.
func connection(s *Server, c *call, q *readRequest, ctx context.Context) (any, error) {
	facts, err := s.engine.Everywhere().ConnectionFacts(ctx, q.id)
	if err != nil {
		return nil, err
	}
	row := s.rowOfConn(c.key, &facts)
	if row == nil {
		return nil, engine.ErrConnectionUnknown
	}
	return row, nil
}

// checkID checks that a read names a connection.
func checkID(c *call, q *readRequest) *problem {
	if q.id == "" {
		return invalid([]fault{{c.at + "/id", "name the connection"}})
	}
	return nil
}
