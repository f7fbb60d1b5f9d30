//go:build linux

package load

import (
	"bytes"
	"fmt"
)

// dialect is the protocol of a server. All peers but Centrifugo and the library below it speak the room protocol.
//
// Owner: immutable.
type dialect struct {
	path    string // of the WebSocket; empty: the root
	hello   string // sent after the handshake; the client waits for its answer
	join    func(room string) []byte
	joined  string // a part of the answer to a join
	publish func(room string, data []byte) []byte
	echo    func(payload []byte) []byte
	own     bool // publishers get their own messages; an echo comes wrapped
	lines   bool // a frame may hold several messages, a line each
	api     *api

	greeted    string // a part of the answer to hello; empty: any
	ping, pong string // the server's ping in a text, and its answer
	sent       string // a part of the answer to a publish
	seq        string // what stands in front of a message's number by the server

	// What a client remembers of the messages that it gets, what it says with that when it comes back, in place of hello or else of
	// join, and a part of the answer.
	remember  func(r *returner, payload []byte)
	resume    func(room string, r *returner) []byte
	atOnce    bool // in place of hello
	stateless bool // without a token
	resumed   string
}

var dialects = map[string]*dialect{
	"": {
		join:   func(room string) []byte { return fmt.Appendf(nil, `{"type":"join","room":%q}`, room) },
		joined: `"joined"`,
		publish: func(room string, data []byte) []byte {
			return fmt.Appendf(nil, `{"type":"broadcast","room":%q,"data":%s}`, room, data)
		},
		echo:     func(payload []byte) []byte { return payload },
		sent:     `"type":"broadcast_sent"`,
		seq:      `"seq":`,
		remember: rememberParley,
		resume: func(room string, r *returner) []byte {
			if len(r.at) == 0 {
				return fmt.Appendf(nil, `{"type":"reconnect","token":%q}`, r.token)
			}
			return fmt.Appendf(nil, `{"type":"reconnect","token":%q,"last":{%q:{"seq":%s,"epoch":%q}}}`, r.token, room, r.at, r.epoch)
		},
		resumed: `"type":"reconnected"`,
		api: &api{
			publish: "/v1/publish", batch: "/v1/batch", key: "Authorization: Bearer ",
			one: func(room string, data []byte) []byte { return fmt.Appendf(nil, `{"room":%q,"data":%s}`, room, data) },
			several: func(one []byte, n int) []byte {
				return list(`{"operations":[`, fmt.Appendf(nil, `{"do":"publish",%s`, one[1:]), n)
			},
			message: func(one []byte) []byte { return fmt.Appendf(nil, `{"do":"publish","ref":1,%s`, one[1:]) },
			result:  []byte(`"result":`),
		},
	},
	"centrifuge": centrifuge(""),
	"centrifugo": centrifuge("/connection/websocket"),
	"socketio":   socketIO,
}

// centrifuge is the protocol of Centrifugo [https://centrifugal.dev/docs/transports/client_protocol], with its API
// [https://centrifugal.dev/docs/server/server_api].
func centrifuge(path string) *dialect {
	return &dialect{
		path:   path,
		hello:  `{"id":1,"connect":{}}`,
		join:   func(room string) []byte { return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q}}`, room) },
		joined: `"id":2`,
		publish: func(room string, data []byte) []byte {
			return fmt.Appendf(nil, `{"id":3,"publish":{"channel":%q,"data":%s}}`, room, data)
		},
		echo:  func(payload []byte) []byte { return fmt.Appendf(nil, `{"id":4,"rpc":{"data":%s}}`, payload) },
		own:   true,
		lines: true,
		ping:  "{}",
		pong:  "{}",
		sent:  `{"id":3,`,
		seq:   `"offset":`,
		remember: func(r *returner, payload []byte) {
			r.epoch = member(r.epoch, payload, `"epoch":"`, '"')
			r.at = member(r.at, payload, `"offset":`, '}', ',')
		},
		resume: func(room string, r *returner) []byte {
			if len(r.epoch) == 0 {
				return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q}}`, room)
			}
			return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q,"recover":true,"epoch":%q,"offset":%s}}`, room, r.epoch, r.at)
		},
		stateless: true,
		resumed:   `{"id":2,`,
		api: &api{
			publish: "/api/publish", batch: "/api/batch", key: "X-API-Key: ",
			one: func(room string, data []byte) []byte { return fmt.Appendf(nil, `{"channel":%q,"data":%s}`, room, data) },
			several: func(one []byte, n int) []byte {
				return list(`{"commands":[`, fmt.Appendf(nil, `{"publish":%s}`, one), n)
			},
		},
	}
}

// list is an object whose only member is a list of n equal elements.
func list(begin string, one []byte, n int) []byte {
	text := bytes.Repeat(append(one, ','), n)
	return append(append([]byte(begin), text[:len(text)-1]...), "]}"...)
}

func rememberParley(r *returner, payload []byte) {
	if bytes.HasPrefix(payload, []byte(`{"type":"reconnect_token"`)) {
		r.token = member(r.token, payload, `"token":"`, '"')
		return
	}
	r.epoch = member(r.epoch, payload, `"epoch":"`, '"')
	r.at = member(r.at, payload, `"seq":`, '}', ',')
}

// socketIO is the protocol of Socket.IO over a WebSocket alone [https://socket.io/docs/v4/socket-io-protocol], with the events of
// the peer. With its connection state recovery every event ends with an offset.
var socketIO = &dialect{
	path:    "/socket.io/?EIO=4&transport=websocket",
	hello:   "40",
	greeted: `40{`,
	join:    func(room string) []byte { return fmt.Appendf(nil, `42["join",%q]`, room) },
	joined:  `["joined"`,
	publish: func(room string, data []byte) []byte { return fmt.Appendf(nil, `42["broadcast",%q,%s]`, room, data) },
	ping:    "2",
	pong:    "3",
	sent:    `["sent"`,
	remember: func(r *returner, payload []byte) {
		if bytes.HasPrefix(payload, []byte("40{")) {
			r.token = member(r.token, payload, `"pid":"`, '"')
		} else if bytes.HasSuffix(payload, []byte(`"]`)) {
			text := payload[:len(payload)-2]
			r.at = bytes.Clone(text[bytes.LastIndexByte(text, '"')+1:])
		}
	},
	resume: func(_ string, r *returner) []byte {
		return fmt.Appendf(nil, `40{"pid":%q,"offset":%q}`, r.token, r.at)
	},
	atOnce:  true,
	resumed: `40{`,
}

// member is a copy of what stands between a text and the first of the ends, or old if the text does not occur.
func member(old, payload []byte, begin string, ends ...byte) []byte {
	_, rest, found := bytes.Cut(payload, []byte(begin))
	end := bytes.IndexAny(rest, string(ends))
	if !found || end < 0 {
		return old
	}
	return bytes.Clone(rest[:end])
}
