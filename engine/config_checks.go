package engine

import (
	"fmt"
	"math"
	"time"

	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/protocol/handshake"
)

const (
	backlogBytesMost = 1 << 40
	workersMost      = 1 << 20
	messageRateMost  = 1_000_000

	// A browser's handshake has some 15 fields and 500 bytes without cookies.
	headBytesLeast, headBytesMost   = 1 << 10, 1 << 20
	headFieldsLeast, headFieldsMost = 16, 10_000
)

// checkNumbers reports the first number or time outside its range.
func (c Config) checkNumbers() error {
	key, hint := settings.CheckNumbers([]settings.Number{
		number("max_connections", c.MaxConnections, 0, math.MaxInt32),
		number("connections_per_address_max", c.ConnectionsPerAddressMax, 0, math.MaxInt32),
		number("message_rate", c.MessageRate, 0, messageRateMost),
		number("message_burst", c.MessageBurst, 0, messageRateMost),
		number("message_strikes", c.MessageStrikes, 0, math.MaxInt32),
		number("max_connections_per_room", c.MaxConnectionsPerRoom, 0, math.MaxInt32),
		number("max_rooms_per_connection", c.MaxRoomsPerConnection, math.MinInt32, math.MaxInt32),
		number("announce_members_max", c.AnnounceMembersMax, math.MinInt32, math.MaxInt32),
		number("reconnection_max_attempts", c.ReconnectionMaxAttempts, 0, math.MaxInt32),
		number("message_fragments_max", c.MessageFragmentsMax, 0, math.MaxInt32),
		number("backlog_soft_bytes", c.BacklogSoftBytes, 0, backlogBytesMost),
		number("backlog_hard_bytes", c.BacklogHardBytes, 0, backlogBytesMost),
		number("attributes_bytes_max", c.AttributesBytesMax, 0, math.MaxInt32),
		number("handshake_bytes_max", c.HandshakeBytesMax, headBytesLeast, headBytesMost),
		number("handshake_fields_max", c.HandshakeFieldsMax, headFieldsLeast, headFieldsMost),
		number("memory_bytes_max", c.MemoryBytesMax, 0, backlogBytesMost),
		number("offload_workers", c.OffloadWorkers, 0, workersMost),
	}, []settings.Duration{
		duration("heartbeat_interval", c.HeartbeatInterval), duration("heartbeat_timeout", c.HeartbeatTimeout),
		duration("reconnection_ttl", c.ReconnectionTTL), duration("backlog_grace", c.BacklogGrace),
		duration("handshake_timeout", c.HandshakeTimeout), duration("auth_timeout", c.AuthTimeout),
		duration("offload_timeout", c.OffloadTimeout), duration("receipt_interval", c.ReceiptInterval), duration("shutdown_timeout", c.ShutdownTimeout),
	})
	if key != "" {
		return &ConfigError{Key: key, Hint: hint}
	}
	return nil
}

func number(key string, value, least, most int) settings.Number {
	return settings.Number{Key: key, Value: value, Least: least, Most: most}
}

func duration(key string, value time.Duration) settings.Duration {
	return settings.Duration{Key: key, Value: value}
}

// checkTexts reports the first text that is certainly a mistake, as a *[ConfigError].
func (c Config) checkTexts() error {
	key, hint := settings.CheckTexts(c, "bus_url") // its hint must not show any of the URL
	if key == "" {
		key, hint = settings.CheckPaths(map[string]string{"data_dir": c.DataDir, "bus_credentials": c.BusCredentials})
	}
	if fault := settings.CheckHost(c.Host); fault != "" && key == "" {
		key, hint = "host", fmt.Sprintf("%q is no address to listen on: %s", c.Host, fault)
	}
	if _, err := handshake.NewOrigins(c.Origins); err != nil && key == "" {
		key, hint = "origins", err.Error()
	}
	for _, name := range c.Subprotocols {
		if !handshake.IsToken(name) && key == "" {
			key, hint = "subprotocols", fmt.Sprintf("%q is no name of a subprotocol; letters, digits and ! # $ %% & ' * + - . ^ _ ` | ~ make one", name)
		}
	}
	if key != "" {
		return &ConfigError{Key: key, Hint: hint}
	}
	return nil
}
