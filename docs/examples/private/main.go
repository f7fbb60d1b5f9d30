// Command private passes messages between users. All devices of a user get them, those of the sender, too. A user that is offline
// gets them later, and the sender is told.
//
//	go run ./docs/examples/private -secret secrets/jwt
//
// What it refuses to do: keeping messages over a restart, since a history is memory. Start reading at newServer.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os/signal"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
)

// roomOf is the room of a user's devices. Its history keeps what an offline user has not read.
func roomOf(user string) string { return "user:" + user }

// rules let every user read the own room. All other ways in are closed: only this program publishes.
var rules = []access.Entry{
	{Match: roomOf("{user}"), Join: []string{"users"}, Publish: []string{"nobody"}},
	{Match: "**", Join: []string{"nobody"}, Publish: []string{"nobody"}},
}

type private struct {
	To   string `json:"to"`
	Text string `json:"text"`
	ID   string `json:"id"` // chosen by the client, so that a repetition after a drop is harmless
}

// Validate is called before the handler; its error is answered with invalid_message.
func (m *private) Validate() error {
	switch {
	case m.To == "" || len(m.To) > access.UserBytesMax:
		return errors.New("to is the name of a user")
	case m.Text == "" || len(m.Text) > 2000:
		return errors.New("text has 1 to 2000 bytes")
	case m.ID == "" || len(m.ID) > 64:
		return errors.New("id has 1 to 64 bytes")
	}
	return nil
}

func main() {
	port := flag.Int("port", 9090, "port of the WebSockets")
	secret := flag.String("secret", "secrets/jwt", "file of the secret that signs the tokens of users")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	srv, err := newServer(*port, *secret)
	if err != nil {
		log.Fatal(err)
	}
	log.Printf("private messages on ws://127.0.0.1:%d/", *port)
	if err := srv.Run(ctx); err != nil { // when ctx ends, clients are closed with 1001
		log.Fatal(err)
	}
}

func newServer(port int, secretFile string) (*engine.Server, error) {
	secret, err := access.ReadSecret(secretFile)
	if err != nil {
		return nil, err
	}
	verifier, err := access.NewVerifier(access.Options{Secret: secret})
	if err != nil {
		return nil, err
	}
	guard, err := access.NewGuard(access.GuardOptions{Auth: access.Required, Verifier: verifier, Rules: rules, Grace: 30 * time.Second})
	if err != nil {
		return nil, err
	}
	srv, err := engine.New(engine.Config{Host: "127.0.0.1", Port: port, Subprotocols: []string{access.Subprotocol},
		History: []string{"user:**=messages:50;age:24h"}})
	if err != nil {
		return nil, err
	}
	guard.Install(srv) // it checks tokens, and sets the principal of each connection
	srv.Emitter().On(engine.EventConnect, func(e engine.Event) {
		if err := e.Server.Rooms().Join(e.Conn, roomOf(e.Conn.Principal())); err != nil {
			log.Printf("a device of %q gets no messages: %v", e.Conn.Principal(), err)
		}
	})
	engine.On(srv, "private", send, engine.With(engine.RateLimit(engine.Rate{PerSecond: 5, Burst: 10})))
	return srv, nil
}

// send publishes to the devices of the receiver, and to the other devices of the sender.
func send(c *engine.Conn, m private, s *engine.Server) (any, error) {
	from, now := c.Principal(), time.Now().Unix()
	once := engine.BroadcastOptions{IdempotencyKey: m.ID, Scope: from}
	devices := 0
	if stats, ok := s.Rooms().Stats(roomOf(m.To)); ok {
		devices = stats.Connections
	}
	message := engine.M{"type": "private", "room": roomOf(m.To), "from": from, "text": m.Text, "timestamp": now}
	if err := s.Publish(roomOf(m.To), message, once); err != nil {
		return nil, err
	}
	if m.To != from {
		once.Except = []string{c.ID()} // this device has the answer
		own := engine.M{"type": "private", "room": roomOf(from), "from": from, "to": m.To, "text": m.Text, "timestamp": now}
		if err := s.Publish(roomOf(from), own, once); err != nil {
			return nil, err
		}
	}
	return engine.M{"type": "private_sent", "id": m.ID, "devices": devices, "online": devices > 0}, nil
}
