package engine

import (
	"fmt"
	"math"
	"time"
)

// number is a numeric setting with its least and its greatest value. A greater value would wrap where the engine keeps 32
// bits, or would overflow.
//
// Owner: immutable after New.
type number struct {
	key                string
	value, least, most int
}

const (
	backlogBytesMost = 1 << 40
	workersMost      = 1 << 20
	durationMost     = 1_000_000_000 * time.Second // 31 years; added to the time it stays one

	// A browser's handshake has some 15 fields and 500 bytes without cookies.
	headBytesLeast, headBytesMost   = 1 << 10, 1 << 20
	headFieldsLeast, headFieldsMost = 16, 10_000
)

// checkNumbers reports the first number or time outside its range.
func (c Config) checkNumbers() error {
	for _, n := range []number{
		{"max_connections", c.MaxConnections, 0, math.MaxInt32},
		{"max_connections_per_room", c.MaxConnectionsPerRoom, 0, math.MaxInt32},
		{"max_rooms_per_connection", c.MaxRoomsPerConnection, math.MinInt32, math.MaxInt32},
		{"announce_members_max", c.AnnounceMembersMax, math.MinInt32, math.MaxInt32},
		{"reconnection_max_attempts", c.ReconnectionMaxAttempts, 0, math.MaxInt32},
		{"message_fragments_max", c.MessageFragmentsMax, 0, math.MaxInt32},
		{"backlog_soft_bytes", c.BacklogSoftBytes, 0, backlogBytesMost},
		{"backlog_hard_bytes", c.BacklogHardBytes, 0, backlogBytesMost},
		{"attributes_bytes_max", c.AttributesBytesMax, 0, math.MaxInt32},
		{"handshake_bytes_max", c.HandshakeBytesMax, headBytesLeast, headBytesMost},
		{"handshake_fields_max", c.HandshakeFieldsMax, headFieldsLeast, headFieldsMost},
		{"offload_workers", c.OffloadWorkers, 0, workersMost},
	} {
		hint := ""
		switch {
		case n.value < 0 && n.value < n.least:
			hint = fmt.Sprintf("%d is negative", n.value)
		case n.value < n.least:
			hint = fmt.Sprintf("%d is too small; give %d to %d", n.value, n.least, n.most)
		case n.value > n.most:
			hint = fmt.Sprintf("%d is too large; give at most %d", n.value, n.most)
		default:
			continue
		}
		return &ConfigError{Key: n.key, Hint: hint}
	}
	for _, t := range []struct {
		key   string
		value time.Duration
	}{
		{"heartbeat_interval", c.HeartbeatInterval}, {"heartbeat_timeout", c.HeartbeatTimeout},
		{"reconnection_ttl", c.ReconnectionTTL}, {"backlog_grace", c.BacklogGrace},
		{"handshake_timeout", c.HandshakeTimeout}, {"auth_timeout", c.AuthTimeout},
		{"offload_timeout", c.OffloadTimeout}, {"shutdown_timeout", c.ShutdownTimeout},
	} {
		switch {
		case t.value > durationMost:
			return &ConfigError{Key: t.key, Hint: fmt.Sprintf("%v is too long; give at most %.0f seconds", t.value, durationMost.Seconds())}
		case t.value < 0:
			return &ConfigError{Key: t.key, Hint: fmt.Sprintf("%v is negative; give a number of seconds", t.value)}
		}
	}
	return nil
}
