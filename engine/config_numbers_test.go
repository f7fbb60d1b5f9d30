package engine

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/settings"
)

// A number that the engine cannot keep is refused with its key and the most that it takes, and never becomes another one.
func TestNumbersThatCannotBeKept(t *testing.T) {
	const wraps = 1<<32 + 1 // 1 in 32 bits
	for _, row := range []struct {
		key, says string
		cfg       Config
	}{
		{"max_connections", "2147483647", Config{MaxConnections: wraps}},
		{"max_connections_per_room", "2147483647", Config{MaxConnectionsPerRoom: wraps}},
		{"max_connections_per_room", "2147483647", Config{MaxConnectionsPerRoom: 1 << 31}},
		{"max_connections_per_room", "negative", Config{MaxConnectionsPerRoom: -1}},
		{"max_rooms_per_connection", "2147483647", Config{MaxRoomsPerConnection: wraps}},
		{"max_rooms_per_connection", "2147483647", Config{MaxRoomsPerConnection: math.MaxInt64}},
		{"announce_members_max", "2147483647", Config{AnnounceMembersMax: wraps}},
		{"reconnection_max_attempts", "2147483647", Config{ReconnectionMaxAttempts: wraps}},
		{"message_fragments_max", "2147483647", Config{MessageFragmentsMax: wraps}},
		{"backlog_soft_bytes", "1099511627776", Config{BacklogSoftBytes: math.MaxInt64}},
		{"backlog_hard_bytes", "1099511627776", Config{BacklogHardBytes: math.MaxInt64}},
		{"attributes_bytes_max", "2147483647", Config{AttributesBytesMax: wraps}},
		{"handshake_bytes_max", "1048576", Config{HandshakeBytesMax: wraps}},
		{"handshake_bytes_max", "too small; give 1024", Config{HandshakeBytesMax: 10}},
		{"handshake_fields_max", "10000", Config{HandshakeFieldsMax: wraps}},
		{"handshake_fields_max", "too small; give 16", Config{HandshakeFieldsMax: 1}},
		{"offload_workers", "1048576", Config{OffloadWorkers: wraps}},
		{"heartbeat_interval", "1000000000", Config{HeartbeatInterval: math.MaxInt64}},
		{"heartbeat_timeout", "1000000000", Config{HeartbeatTimeout: math.MaxInt64}},
		{"reconnection_ttl", "1000000000", Config{ReconnectionTTL: math.MaxInt64}},
		{"reconnection_ttl", "negative", Config{ReconnectionTTL: -time.Second}},
		{"backlog_grace", "1000000000", Config{BacklogGrace: math.MaxInt64}},
		{"handshake_timeout", "1000000000", Config{HandshakeTimeout: math.MaxInt64}},
		{"handshake_timeout", "negative", Config{HandshakeTimeout: -time.Second}},
		{"auth_timeout", "1000000000", Config{AuthTimeout: math.MaxInt64}},
		{"offload_timeout", "1000000000", Config{OffloadTimeout: math.MaxInt64}},
		{"shutdown_timeout", "1000000000", Config{ShutdownTimeout: math.MaxInt64}},
	} {
		_, err := New(row.cfg)
		wrong, ok := errors.AsType[*ConfigError](err)
		if !ok || wrong.Key != row.key || !strings.Contains(wrong.Hint, row.says) {
			t.Errorf("%s: %v, want it to say %q", row.key, err, row.says)
		}
	}
	for _, cfg := range []Config{{MaxConnectionsPerRoom: math.MaxInt32, MaxRoomsPerConnection: math.MaxInt32}, {MaxRoomsPerConnection: -1, AnnounceMembersMax: -1},
		{ReconnectionTTL: settings.DurationMost}} {
		if _, err := New(cfg); err != nil {
			t.Error(err)
		}
	}
}

// A room's own limit beyond 32 bits is as good as none: it does not become another one.
func TestRoomLimitBeyond(t *testing.T) {
	w := newScript(t, nil)
	if err := w.server.Server.Rooms().Create("r", RoomOptions{MaxMembers: 1<<32 + 1}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c := w.open(0)
		w.say(c, `{"type":"join","room":"r"}`)
		w.drain()
		if got := kinds(w.read(c)); !strings.HasSuffix(got, "joined") {
			t.Error(got)
		}
	}
}
