//go:build linux

package peers

import (
	"encoding/json"
	"net/http"

	"github.com/lesismal/nbio/logging"
	"github.com/lesismal/nbio/nbhttp"
	"github.com/lesismal/nbio/nbhttp/websocket"
)

// serveNbio follows nbio's websocket example: non-blocking connections on its own engine.
func serveNbio(addr string, echo bool) error {
	logging.SetLevel(logging.LevelError)
	hub := newHub[*websocket.Conn]()
	upgrader := websocket.NewUpgrader()
	upgrader.OnOpen(func(c *websocket.Conn) { c.SetSession(lastID.Add(1)) })
	upgrader.OnClose(func(c *websocket.Conn, _ error) { hub.leave(c) })
	upgrader.OnMessage(func(c *websocket.Conn, kind websocket.MessageType, p []byte) {
		if echo {
			c.WriteMessage(kind, p)
			return
		}
		var e envelope
		if json.Unmarshal(p, &e) != nil {
			return
		}
		switch e.Type {
		case "join":
			c.WriteMessage(websocket.TextMessage, joined(e.Room, hub.join(e.Room, c)))
		case "broadcast":
			out := broadcast(e.Room, c.Session().(uint64), e.Data)
			n := hub.others(e.Room, c, func(other *websocket.Conn) { other.WriteMessage(websocket.TextMessage, out) })
			c.WriteMessage(websocket.TextMessage, sent(e.Room, n))
		}
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { upgrader.Upgrade(w, r, nil) })
	engine := nbhttp.NewEngine(nbhttp.Config{Network: "tcp", Addrs: []string{addr}, MaxLoad: 1_000_000, Handler: mux})
	if err := engine.Start(); err != nil {
		return err
	}
	select {}
}
