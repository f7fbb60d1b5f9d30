package cluster_test

import (
	"encoding/json"
	"fmt"

	"github.com/parleyd/parley/engine"
)

// The requests of clients in the tests of limits.

// roomOrder is a request to handleRooms.
type roomOrder struct {
	Room string `json:"room"`
	Max  int    `json:"max"`
	// History is of the room that is created.
	History *engine.HistoryOptions `json:"history"`
}

// handleRooms lets a client create, delete, look at and enter rooms as its worker's application does.
func handleRooms(srv *engine.Server) {
	engine.On(srv, "create", func(_ *engine.Conn, o roomOrder, s *engine.Server) (any, error) {
		err := s.Rooms().Create(o.Room, engine.RoomOptions{MaxMembers: o.Max, Metadata: engine.M{"max": o.Max}, History: o.History})
		return engine.M{"type": "created", "err": fmt.Sprint(err)}, nil
	}, engine.Offload())
	engine.On(srv, "delete", func(_ *engine.Conn, o roomOrder, s *engine.Server) (any, error) {
		return engine.M{"type": "deleted", "ok": s.Rooms().Delete(o.Room)}, nil
	}, engine.Offload())
	engine.On(srv, "stats", func(_ *engine.Conn, o roomOrder, s *engine.Server) (any, error) {
		stats, ok := s.Rooms().Stats(o.Room)
		return engine.M{"type": "stats", "ok": ok, "stats": stats}, nil
	})
	engine.On(srv, "enter", func(c *engine.Conn, o roomOrder, s *engine.Server) (any, error) {
		s.Rooms().JoinThen(c, o.Room, func(err error) { c.Send(engine.M{"type": "entered", "err": fmt.Sprint(err)}) })
		return nil, nil
	})
}

// tryJoin asks for a room and returns "" or the code of the refusal. Any goroutine, as tryLeave.
func (c *client) tryJoin(room string) (code string, err error) {
	answer, err := c.ask(`{"type":"join","room":"`+room+`"}`, "joined", "error")
	if err != nil || answer["type"] == "joined" {
		return "", err
	}
	return answer["code"].(string), nil
}

func (c *client) tryLeave(room string) error {
	_, err := c.ask(`{"type":"leave","room":"`+room+`"}`, "left", "error")
	return err
}

func (c *client) joins(room string) string {
	c.t.Helper()
	code, err := c.tryJoin(room)
	if err != nil {
		c.t.Fatalf("join %s: %v", room, err)
	}
	return code
}

func (c *client) leaves(room string) {
	c.t.Helper()
	c.insist(m{"type": "leave", "room": room}, "left")
}

func (c *client) roomStats(room string) (stats engine.RoomStats, ok bool) {
	c.t.Helper()
	answer := c.must(`{"type":"stats","room":"`+room+`"}`, "stats")
	raw, _ := json.Marshal(answer["stats"])
	if err := json.Unmarshal(raw, &stats); err != nil {
		c.t.Fatal(err)
	}
	return stats, answer["ok"] == true
}

func (c *client) creates(room string, most int) string {
	c.t.Helper()
	return c.must(fmt.Sprintf(`{"type":"create","room":%q,"max":%d}`, room, most), "created")["err"].(string)
}
