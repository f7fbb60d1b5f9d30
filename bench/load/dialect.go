//go:build linux

package load

import "fmt"

// dialect is the protocol of a server. All peers but one speak the room protocol.
//
// Owner: immutable.
type dialect struct {
	hello   string // sent after the handshake; the client waits for its answer
	join    func(room string) []byte
	joined  string // a part of the answer to a join
	publish func(room string, data []byte) []byte
	echo    func(payload []byte) []byte
	own     bool // publishers get their own messages; an echo comes wrapped
	lines   bool // a frame may hold several messages, a line each; an empty object is a ping
}

var dialects = map[string]*dialect{
	"": {
		join:   func(room string) []byte { return fmt.Appendf(nil, `{"type":"join","room":%q}`, room) },
		joined: `"joined"`,
		publish: func(room string, data []byte) []byte {
			return fmt.Appendf(nil, `{"type":"broadcast","room":%q,"data":%s}`, room, data)
		},
		echo: func(payload []byte) []byte { return payload },
	},
	// [https://centrifugal.dev/docs/transports/client_protocol]
	"centrifuge": {
		hello:  `{"id":1,"connect":{}}`,
		join:   func(room string) []byte { return fmt.Appendf(nil, `{"id":2,"subscribe":{"channel":%q}}`, room) },
		joined: `"id":2`,
		publish: func(room string, data []byte) []byte {
			return fmt.Appendf(nil, `{"id":3,"publish":{"channel":%q,"data":%s}}`, room, data)
		},
		echo:  func(payload []byte) []byte { return fmt.Appendf(nil, `{"id":4,"rpc":{"data":%s}}`, payload) },
		own:   true,
		lines: true,
	},
}
