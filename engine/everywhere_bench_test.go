package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
)

// BenchmarkEverywhere is what questions to two workers cost, over a real bus, in one process.
func BenchmarkEverywhere(b *testing.B) {
	const conns = 1000
	ws := startWorkers(b, 2, func(c *Config) { c.AnnounceMembersMax = -1 }, nil)
	for i := range conns {
		c := dial(b, ws.list[i%2].Server)
		c.join("r")
		ws.list[i%2].Connection(c.id).SetAttribute("n", i%100)
	}
	for i := range 10_000 {
		ws.list[i%2].Rooms().Create(fmt.Sprint("room", i), RoomOptions{})
	}
	ctx, x := context.Background(), ws.list[0].Everywhere()
	far := dial(b, ws.list[1].Server)
	for name, ask := range map[string]func() error{
		"ConnectionCount": func() error { _, err := x.ConnectionCount(ctx); return err },
		"Connection":      func() error { _, err := x.Connection(ctx, far.id); return err },
		"Stats":           func() error { _, err := x.Stats(ctx); return err },
		"Members1000":     func() error { _, err := x.Members(ctx, "r"); return err },
		"Rooms10000":      func() error { _, err := x.Rooms(ctx); return err },
		"Find10Of1000":    func() error { _, err := x.FindByAttribute(ctx, "n", 7); return err },
		"Find0Of1000":     func() error { _, err := x.FindByAttribute(ctx, "n", -1); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("Event", func(b *testing.B) {
		c := ws.list[1].Connection(far.id)
		for b.Loop() {
			json.Marshal(RemoteEvent{Kind: EventRoomJoin, Conn: c.Facts(), Room: "r"})
		}
	})
}
