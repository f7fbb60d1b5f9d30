// Command game is a table for two, where the server keeps seats and turns. The players take 1 to 3 of 21 sticks, one after the other;
// the player with the last stick wins.
//
//	go run ./docs/examples/game -secret secrets/jwt
//
// What it refuses to do: several processes, since the state of the table is in the memory of one. Start reading at newServer, then
// table.go.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
)

func main() {
	port := flag.Int("port", 9090, "port of the WebSockets")
	secret := flag.String("secret", "secrets/jwt", "file of the secret that signs the tokens of players")
	keep := flag.Duration("keep", time.Minute, "how long the seat of a player that is cut off stays free for the player")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	srv, err := newServer(*port, *secret, *keep)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("table %s on ws://127.0.0.1:%d/", tableName, *port)
	if err := srv.Run(ctx); err != nil { // when ctx ends, clients are closed with 1001
		log.Fatal(err)
	}
}

func newServer(port int, secretFile string, keep time.Duration) (*engine.Server, error) {
	secret, err := access.ReadSecret(secretFile)
	if err != nil {
		return nil, err
	}
	verifier, err := access.NewVerifier(access.Options{Secret: secret})
	if err != nil {
		return nil, err
	}
	srv, err := engine.New(engine.Config{Host: "127.0.0.1", Port: port, ReconnectionTTL: max(keep, time.Second)})
	if err != nil {
		return nil, err
	}
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		claims, err := verifier.Verify(r.Query("token"), time.Now())
		if err != nil {
			return engine.Refuse(engine.StatusUnauthorized, "this token is not good")
		}
		c.SetPrincipal(claims.User)
		return nil
	})
	// The limit counts connections; the table counts users, and so keeps the seat of a user that has none at the moment.
	if err := srv.Rooms().Create(tableName, engine.RoomOptions{MaxMembers: players}); err != nil {
		return nil, err
	}
	t := &table{srv: srv, keep: keep, sticks: sticksMax}
	srv.SetPolicy(t)
	srv.Emitter().On(engine.EventRoomJoin, t.entered)
	srv.Emitter().On(engine.EventRoomLeave, t.left)
	engine.On(srv, "take", t.take, engine.With(engine.RateLimit(engine.Rate{PerSecond: 5, Burst: 5})))
	return srv, nil
}
