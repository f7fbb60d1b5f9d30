package engine_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// newServer is a server on a port of the kernel's choice; a program gives Port.
func newServer() *engine.Server {
	srv, err := engine.New(engine.Config{Host: "127.0.0.1", Port: -1}, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		log.Fatal(err)
	}
	return srv
}

// talk starts the server, sends texts as a client, and prints the answers with a ref, and how the server ends it.
func talk(srv *engine.Server, query string, texts ...string) {
	if err := srv.Start(); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(context.Background())
	conn, _, _, err := ws.Dial(context.Background(), "ws://"+srv.Addr().String()+"/"+query)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	for _, text := range texts {
		wsutil.WriteClientText(conn, []byte(text))
		for {
			answer, _, err := wsutil.ReadServerData(conn)
			if err != nil {
				fmt.Println(err)
				return
			}
			if s := string(answer); len(s) > 9 && s[len(s)-9:] == `,"ref":1}` {
				fmt.Println(s)
				break
			}
		}
	}
}

func ExampleOn() {
	type chat struct {
		Room string `json:"room"`
		Text string `json:"text"`
	}
	srv := newServer()
	engine.On(srv, "chat", func(c *engine.Conn, m chat, s *engine.Server) (any, error) {
		if !s.Rooms().Has(m.Room, c) {
			return nil, engine.ErrNotInRoom
		}
		members, err := s.Broadcast(m.Room, engine.M{"type": "chat", "from": c.ID(), "text": m.Text}, c.ID())
		return engine.M{"type": "chat_sent", "others": members - 1}, err
	})
	talk(srv, "", `{"type":"chat","room":"tea","text":"hello","ref":1}`, `{"type":"join","room":"tea","ref":1}`,
		`{"type":"chat","room":"tea","text":"hello","ref":1}`)
	// Output:
	// {"type":"error","code":"not_in_room","message":"the connection is not in this room; join it first","ref":1}
	// {"type":"joined","room":"tea","members":1,"ref":1}
	// {"others":0,"type":"chat_sent","ref":1}
}

func ExampleServer_OnConnect() {
	srv := newServer()
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		user := r.Query("token") // look it up: a connect handler runs on a pool, and may be slow
		if user == "" {
			return engine.RefuseStatus(401, "a token is needed")
		}
		c.SetPrincipal(user) // nobody else resumes the session
		return c.SetAttribute("user_name", user)
	})
	srv.On("whoami", func(c *engine.Conn, _ *engine.Message, _ *engine.Server) (any, error) {
		name, _ := engine.Attribute[string](c, "user_name")
		return engine.M{"type": "you", "name": name, "principal": c.Principal()}, nil
	})
	talk(srv, "?token=ann", `{"type":"whoami","ref":1}`)
	// Output:
	// {"name":"ann","principal":"ann","type":"you","ref":1}
}

func ExampleServer_OnAuth() {
	srv := newServer()
	srv.OnAuth(func(c *engine.Conn, token string) error {
		if token != "ann's" {
			return &engine.Error{Code: "unauthorized", Message: "this token is not known"}
		}
		c.SetPrincipal("ann")
		return nil
	})
	talk(srv, "", `{"type":"join","room":"tea","ref":1}`, `{"type":"auth","token":"ann's","ref":1}`)
	// Output:
	// {"type":"error","code":"auth_required","message":"authenticate first","ref":1}
	// {"type":"authenticated","ref":1}
}

func ExampleEmitter_On() {
	srv := newServer()
	srv.Emitter().On(engine.EventRoomJoin, func(ev engine.Event) { fmt.Println("somebody joined", ev.Room) })
	srv.On("enter", func(c *engine.Conn, _ *engine.Message, s *engine.Server) (any, error) {
		err := s.Rooms().Join(c, "tea") // c enters on its loop, before the reply is sent
		return engine.M{"type": "entered", "sent": s.SendTo(c.ID(), engine.M{"type": "welcome"})}, err
	})
	talk(srv, "", `{"type":"enter","ref":1}`)
	// Output:
	// somebody joined tea
	// {"sent":true,"type":"entered","ref":1}
}
