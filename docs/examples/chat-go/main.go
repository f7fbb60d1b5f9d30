// Command chat-go is a chat in one program: Parley as a library holds the WebSockets, and net/http serves the page and the login.
//
//	go run ./docs/examples/chat-go
//
// What it refuses to do: passwords, and keeping messages for longer than the history of the room. Start reading at run.
package main

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine"
)

const room = "chat"

//go:embed page.html
var page []byte

func main() {
	wsPort := flag.Int("ws", 9090, "port of the WebSockets")
	httpPort := flag.Int("http", 8000, "port of the page")
	flag.Parse()
	if err := run(*wsPort, *httpPort); err != nil {
		log.Fatal(err)
	}
}

// run serves until SIGINT or SIGTERM.
func run(wsPort, httpPort int) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	logins := newLogins()
	srv, err := newServer(logins, wsPort, httpPort)
	if err != nil {
		return err
	}
	web := &http.Server{
		Addr:              fmt.Sprintf("127.0.0.1:%d", httpPort),
		Handler:           routes(logins, wsPort),
		ReadHeaderTimeout: 5 * time.Second,
	}
	failed := make(chan error, 1)
	go func() {
		failed <- web.ListenAndServe()
		stop() // the chat does not go on without its page
	}()
	log.Printf("http://127.0.0.1:%d/", httpPort)
	err = srv.Run(ctx) // when ctx ends, clients are closed with 1001, and come back later
	if closed := web.Close(); err == nil {
		err = closed
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = ended
	}
	return err
}

// newServer is the room server. Clients join and publish by themselves; this program says who they are and what they may do.
func newServer(logins *logins, wsPort, httpPort int) (*engine.Server, error) {
	srv, err := engine.New(engine.Config{
		Host: "127.0.0.1",
		Port: wsPort,
		// Cookies authenticate here. So only our own page may connect, or any other site could speak in the user's name.
		Origins: []string{fmt.Sprintf("http://127.0.0.1:%d", httpPort)},
		History: []string{room}, // a browser that was offline gets what it missed
	})
	if err != nil {
		return nil, err
	}
	srv.OnConnect(func(c *engine.Conn, r *engine.Request) error {
		user, ok := logins.user(r.Cookie(cookie))
		if !ok {
			return engine.Refuse(engine.StatusUnauthorized, "log in first") // 4001: the page stays away
		}
		c.SetPrincipal(user) // other members read it beside each message
		return nil
	})
	srv.SetPolicy(onlyRoom{})
	srv.Use(engine.RateLimit(engine.Rate{PerSecond: 2, Burst: 5}), "broadcast")
	srv.Use(engine.Validate(checkWords), "broadcast")
	return srv, nil
}

// onlyRoom keeps clients from making rooms of their own.
type onlyRoom struct{}

// Allow is called on a loop, and must not block.
func (onlyRoom) Allow(_ *engine.Conn, _ engine.Act, name string, _ bool) engine.Decision {
	if name != room {
		return engine.Decision{Refuse: &engine.Error{Code: "forbidden", Message: "there is one room: " + room}}
	}
	return engine.Decision{}
}

// checkWords wants {"text":"..."} in each message. Members get the message as it was sent.
func checkWords(_ *engine.Conn, m *engine.Message) error {
	var said struct {
		Data struct {
			Text string `json:"text"`
		} `json:"data"`
	}
	if err := m.Decode(&said); err != nil {
		return err
	}
	if n := len(said.Data.Text); n < 1 || n > 2000 {
		return errors.New("a message has 1 to 2000 bytes")
	}
	return nil
}

// routes are the pages.
func routes(logins *logins, wsPort int) http.Handler {
	client := cmp.Or(os.Getenv("PARLEY_JS"), "engine/admin/page/parley.js")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(page) // an error means that the browser has gone
	})
	mux.HandleFunc("GET /parley.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, client) })
	mux.HandleFunc("POST /login", logins.handle)
	mux.HandleFunc("GET /where", func(w http.ResponseWriter, r *http.Request) {
		user, ok := logins.userOf(r)
		if !ok {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"url":"ws://127.0.0.1:%d/","room":%q,"user":%q}`, wsPort, room, user)
	})
	return mux
}
