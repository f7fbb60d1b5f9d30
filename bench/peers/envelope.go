//go:build linux

// Package peers holds the servers that Parley is compared with. Each is written as its own documentation advises, and
// speaks only two messages of the room protocol: join and broadcast.
//
// It refuses to be a product: no limits, no heartbeats, no sessions, and none of their cost.
//
// Start reading at [Servers].
package peers

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// Server serves until the process ends. With echo it sends every message back instead of the room protocol.
type Server func(addr string, echo bool) error

// Servers are the peers by name.
var Servers = map[string]Server{
	"floor":      serveFloor,
	"floor-ring": serveFloorRing,
	"gws":        serveGws,
	"gorilla":    serveGorilla,
	"gobwas":     serveGobwas,
	"nbio":       serveNbio,
	"coder":      serveCoder,
	"melody":     serveMelody,
	"centrifuge": serveCentrifuge,

	"centrifuge-history": serveCentrifugeHistory,
}

// envelope is a message of a client.
type envelope struct {
	Type string          `json:"type"`
	Room string          `json:"room"`
	Data json.RawMessage `json:"data"`
}

func joined(room string, members int) []byte {
	return fmt.Appendf(nil, `{"type":"joined","room":%q,"members":%d}`, room, members)
}

func sent(room string, recipients int) []byte {
	return fmt.Appendf(nil, `{"type":"broadcast_sent","room":%q,"recipients":%d}`, room, recipients)
}

// broadcast is the message to the other members of a room.
func broadcast(room string, from uint64, data []byte) []byte {
	out := fmt.Appendf(make([]byte, 0, len(data)+128), `{"type":"broadcast","room":%q,"from":"%024x","data":`, room, from)
	out = append(append(out, data...), `,"timestamp":`...)
	return append(strconv.AppendInt(out, time.Now().Unix(), 10), '}')
}

// hub holds rooms as the examples of goroutine servers do: a map of sets under a lock.
type hub[C comparable] struct {
	mu    sync.RWMutex
	rooms map[string]map[C]struct{}
	of    map[C]string
}

func newHub[C comparable]() *hub[C] {
	return &hub[C]{rooms: map[string]map[C]struct{}{}, of: map[C]string{}}
}

func (h *hub[C]) join(room string, c C) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	members := h.rooms[room]
	if members == nil {
		members = map[C]struct{}{}
		h.rooms[room] = members
	}
	members[c] = struct{}{}
	h.of[c] = room
	return len(members)
}

func (h *hub[C]) leave(c C) {
	h.mu.Lock()
	defer h.mu.Unlock()
	room, ok := h.of[c]
	if !ok {
		return
	}
	delete(h.of, c)
	delete(h.rooms[room], c)
	if len(h.rooms[room]) == 0 {
		delete(h.rooms, room)
	}
}

// others calls f for every other member and returns their number.
func (h *hub[C]) others(room string, c C, f func(C)) (n int) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for other := range h.rooms[room] {
		if other != c {
			f(other)
			n++
		}
	}
	return n
}
