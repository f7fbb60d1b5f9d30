package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/reactor"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/protocol/proxy"
)

// Config has all settings of a server. The zero value of a field means its default, except where the field says otherwise;
// [DefaultConfig] has the defaults. The `key` tag is the name in a file, in the environment (PARLEY_ and upper case) and as
// a flag (with dashes).
//
// Owner: immutable after New.
type Config struct {
	// Host is the address to listen on, by default 127.0.0.1; 0.0.0.0 or :: for all interfaces.
	Host string `key:"host"`
	// Port to listen on, 1 to 65535; -1 lets the kernel choose (see Server.Addr).
	Port int `key:"port"`
	// Processes is the number of workers that are one server; more than one is for package cluster.
	Processes int `key:"processes"`
	// Loops is the number of event loops; 0 means one per core that Go may use.
	Loops int `key:"loops"`
	// Sends says how writes to several connections reach the kernel: ring, all in one system call, by io_uring; plain, each in
	// one of its own; auto, by default, as ring where the kernel permits it.
	Sends string `key:"sends"`

	// HeartbeatInterval is the silence after which the server pings a client, and the time between two pings.
	HeartbeatInterval time.Duration `key:"heartbeat_interval"`
	// HeartbeatTimeout is the silence after which a connection is closed with 4002. It must exceed the interval.
	HeartbeatTimeout time.Duration `key:"heartbeat_timeout"`

	// ReconnectionTTL is how long a session outlives its connection.
	ReconnectionTTL time.Duration `key:"reconnection_ttl"`
	// ReconnectionMaxAttempts is how often in a row a session may be resumed.
	ReconnectionMaxAttempts int `key:"reconnection_max_attempts"`
	// DataDir is the directory for sessions that outlive a restart of the whole server. Empty: sessions end with the server.
	// It is for package cluster.
	DataDir string `key:"data_dir"`
	// BusURL names a NATS server with JetStream that several Processes use in place of their own bus, with an account that
	// no other system uses: nats://user:password@host:4222, tls:// for an encrypted connection, several separated by commas.
	// It keeps sessions as DataDir does. Empty: the server runs a bus of its own. It is for package cluster.
	BusURL string `key:"bus_url"`
	// BusCredentials is the file with the credentials for BusURL, in place of a user in the URL: user:password, a token, or
	// a NATS credentials file. It is read at each connect, so that it may be replaced.
	BusCredentials string `key:"bus_credentials"`

	// MaxConnections is the number of live connections; 0 means the descriptor limit less a reserve.
	MaxConnections int `key:"max_connections"`
	// ConnectionsPerAddressMax bounds the live connections of one client address on this worker; more are refused with 503.
	// An IPv6 address counts as its network of 64 bits; a trusted proxy that names no client is not counted. 0 means none.
	ConnectionsPerAddressMax int `key:"connections_per_address_max"`
	// MaxConnectionsPerRoom bounds every room that was not created with a bound of its own; 0 means none.
	MaxConnectionsPerRoom int `key:"max_connections_per_room"`
	// MaxRoomsPerConnection bounds the rooms that one connection may be in; negative means no limit.
	MaxRoomsPerConnection int `key:"max_rooms_per_connection"`
	// AnnounceMembersMax is the size up to which a room announces joins and leaves; negative means never.
	AnnounceMembersMax int `key:"announce_members_max"`

	// History lists the rooms with history: PATTERN=messages:100;bytes:262144;age:300s;slow:drop, of which the first that matches
	// a room counts. Parts that are left out have these values. In a pattern * stands for any characters but ':', ** for any. slow
	// is the policy for members that cannot keep up: drop, disconnect or conflate.
	History []string `key:"history"`
	// ReceiptInterval is the time between two PINGs that prove what a client has received, in rooms with history.
	ReceiptInterval time.Duration `key:"receipt_interval"`
	// NoReceipts turns these PINGs off. In a configuration file it is `receipts: false`.
	NoReceipts bool `key:"-"`

	// MemoryBytesMax bounds what each worker holds for others: histories, sessions, letters, incomplete messages, unread frames,
	// and what the kernel holds for connections that do not read. Beyond it the connections with the largest backlog end (4003),
	// then histories and waiting sessions go, and at last newcomers are refused. 0 means half of what the process may use: the
	// limit of its control group or the machine's memory, shared among the Processes.
	MemoryBytesMax int `key:"memory_bytes_max"`

	// HideUsers keeps the users of connections from other clients, which learn them beside the ids in broadcast,
	// member_joined, member_left and members. In a configuration file it is `show_users: false`.
	HideUsers bool `key:"-"`

	// MessageBytesMax bounds one message from a client, after inflating; a longer one is closed with 1009. At most 64 MiB,
	// and 8,323,072 with several Processes: the bus carries no longer message.
	MessageBytesMax int `key:"message_bytes_max"`
	// MessageFragmentsMax bounds the frames of one message; a message of more frames is closed with 1008.
	MessageFragmentsMax int `key:"message_fragments_max"`
	// MessageRate is how many messages, text or binary, a connection may send in a second; a message above it gets the error
	// rate_limited, and is not carried out (a Bare server discards it). 0 means any number.
	MessageRate int `key:"message_rate"`
	// MessageBurst is how many of them may come at once; 0 means as many as MessageRate.
	MessageBurst int `key:"message_burst"`
	// MessageStrikes is the number of refusals with which a connection is closed with 4005. They are forgotten when the
	// connection has sent so little that a whole MessageBurst may come again. 0 means that it is not closed.
	MessageStrikes int `key:"message_strikes"`
	// BacklogSoftBytes is the backlog above which a connection may stay for BacklogGrace. The message that is being written
	// does not count. By default four messages of MessageBytesMax, and at least 256 KiB.
	BacklogSoftBytes int `key:"backlog_soft_bytes"`
	// BacklogHardBytes is the backlog above which a connection ends at once, with 4003; the message that is being written
	// does not count. It bounds the input that waits for a turn, too. By default 32 messages of MessageBytesMax up to 16
	// MiB in all, but at least 8 of them, and at least 2 MiB. Never less than one message.
	BacklogHardBytes int `key:"backlog_hard_bytes"`
	// BacklogGrace is how long a backlog may stay above the soft bound before the connection ends with 4003.
	BacklogGrace time.Duration `key:"backlog_grace"`
	// AttributesBytesMax bounds the attributes of one connection, keys and encoded values together.
	AttributesBytesMax int `key:"attributes_bytes_max"`

	// Compression turns on permessage-deflate for clients that offer it.
	Compression bool `key:"compression"`
	// CompressionContextTakeover keeps both windows between messages, if the client allows it. Messages get smaller, but a
	// connection takes up to 55 KiB more, and a broadcast is compressed once for each recipient instead of once for all.
	CompressionContextTakeover bool `key:"compression_context_takeover"`

	// Origins lists the origins whose pages may connect: scheme://host[:port]; scheme://*.host for all hosts below one;
	// null and file://, which pages without an address send; "*" for every origin, as an empty list does. Only "*" lifts
	// a list that is in force: see Server.Reload.
	Origins []string `key:"origins"`
	// Subprotocols lists the subprotocols that the server speaks, the preferred first.
	Subprotocols []string `key:"subprotocols"`
	// TrustedProxies lists the proxies whose statement of a client's address is believed: addresses, networks (10.0.0.0/8),
	// loopback, private (RFC 1918 and fc00::/7), unix. If it is empty, X-Forwarded-For and similar fields are ignored. Never
	// list a network that clients connect from.
	TrustedProxies []string `key:"trusted_proxies"`
	// ProxyHeader names the one header field in which the trusted proxies name the client: x-forwarded-for, x-real-ip or
	// forwarded. The others are then ignored. Empty: all fields that are present must agree, or the handshake is refused.
	ProxyHeader string `key:"proxy_header"`
	// ProxyProtocol requires every connection to begin with a header of the PROXY protocol, version 1 or 2, and to come from
	// a trusted proxy. All other connections are refused.
	ProxyProtocol bool `key:"proxy_protocol"`
	// HandshakeTimeout bounds the arrival of the opening handshake.
	HandshakeTimeout time.Duration `key:"handshake_timeout"`
	// HandshakeBytesMax bounds the opening handshake's head: request line and header fields, cookies too. A longer one gets
	// 431.
	HandshakeBytesMax int `key:"handshake_bytes_max"`
	// HandshakeFieldsMax bounds its header fields. A request with more gets 431.
	HandshakeFieldsMax int `key:"handshake_fields_max"`
	// AuthTimeout bounds the wait for the first message of a connection that must authenticate by message.
	AuthTimeout time.Duration `key:"auth_timeout"`
	// OffloadWorkers bounds each of three pools of goroutines: for connect handlers, for auth handlers, and for offloaded
	// handlers.
	OffloadWorkers int `key:"offload_workers"`
	// OffloadTimeout bounds one run of a connect handler or an offloaded handler, the wait for a worker included.
	OffloadTimeout time.Duration `key:"offload_timeout"`
	// ShutdownTimeout is how long shutdown waits for clients.
	ShutdownTimeout time.Duration `key:"shutdown_timeout"`

	// Bare removes the envelope: no greeting, no JSON ping, no routing; every message, text or binary, goes to the raw
	// handler. For echo servers and protocols of the application's own; no configuration file sets it.
	Bare bool `key:"-"`
}

// DefaultConfig is the default configuration.
func DefaultConfig() Config {
	return Config{
		Host:                    "127.0.0.1",
		Port:                    9090,
		Processes:               1,
		Loops:                   runtime.GOMAXPROCS(0),
		Sends:                   reactor.SendsAuto,
		HeartbeatInterval:       30 * time.Second,
		HeartbeatTimeout:        60 * time.Second,
		ReconnectionTTL:         300 * time.Second,
		ReconnectionMaxAttempts: 5,
		MaxRoomsPerConnection:   1000,
		AnnounceMembersMax:      500,
		MessageBytesMax:         64 << 10,
		MessageFragmentsMax:     1024,
		BacklogSoftBytes:        256 << 10,
		BacklogHardBytes:        2 << 20,
		BacklogGrace:            10 * time.Second,
		AttributesBytesMax:      16 << 10,
		HandshakeTimeout:        5 * time.Second,
		HandshakeBytesMax:       16 << 10,
		HandshakeFieldsMax:      100,
		AuthTimeout:             5 * time.Second,
		ReceiptInterval:         10 * time.Second,
		OffloadWorkers:          1024,
		OffloadTimeout:          30 * time.Second,
		ShutdownTimeout:         5 * time.Second,
	}
}

// A ConfigError names the wrong key and says how to correct it.
type ConfigError struct {
	Key  string // as in a configuration file
	Hint string // the fault and its correction, one sentence
}

func (e *ConfigError) Error() string { return e.Key + ": " + e.Hint }

// withDefaults replaces zero values by defaults and checks the result.
func (c Config) withDefaults() (Config, error) {
	d := DefaultConfig()
	c.Host = settings.BareHost(c.Host)
	settings.Or(&c.Processes, d.Processes)
	settings.Or(&c.Loops, max(1, d.Loops/c.Processes))
	settings.Or(&c.HeartbeatInterval, d.HeartbeatInterval)
	settings.Or(&c.HeartbeatTimeout, max(d.HeartbeatTimeout, 2*c.HeartbeatInterval))
	settings.Or(&c.MessageBytesMax, d.MessageBytesMax)
	soft, hard := BacklogDefaults(c.MessageBytesMax)
	settings.Unsay(&c.BacklogSoftBytes, d.BacklogSoftBytes) // a DefaultConfig has them, too; they follow MessageBytesMax
	settings.Unsay(&c.BacklogHardBytes, d.BacklogHardBytes)
	if c.BacklogHardBytes > 0 {
		soft = min(soft, c.BacklogHardBytes)
	}
	settings.Or(&c.BacklogSoftBytes, soft)
	settings.Or(&c.BacklogHardBytes, max(hard, c.BacklogSoftBytes))
	settings.FillZero(&c, d)
	return c.clone(), c.Validate()
}

// clone shares no list with c.
func (c Config) clone() Config {
	c.Origins, c.Subprotocols, c.TrustedProxies = slices.Clone(c.Origins), slices.Clone(c.Subprotocols), slices.Clone(c.TrustedProxies)
	c.History = slices.Clone(c.History)
	return c
}

// processesMax is far above the number of cores of one machine.
const processesMax = 256

// Validate reports the first setting that is not usable, as a *[ConfigError].
func (c Config) Validate() error {
	bad := func(key, hint string, args ...any) error {
		return &ConfigError{Key: key, Hint: fmt.Sprintf(hint, args...)}
	}
	if err := c.checkNumbers(); err != nil {
		return err
	}
	switch {
	case c.Port < -1 || c.Port > 65535:
		return bad("port", "%d is no port; give 1 to 65535", c.Port)
	case c.Processes < 1 || c.Processes > processesMax:
		return bad("processes", "%d is out of range; give 1 to %d", c.Processes, processesMax)
	case c.Loops < 0 || c.Loops > loopsMax:
		return bad("loops", "%d is out of range; give 1 to %d, or 0 for one per core", c.Loops, loopsMax)
	case !slices.Contains(reactor.Sends, c.Sends):
		return bad("sends", "%q is none of %s", c.Sends, strings.Join(reactor.Sends, ", "))
	case c.HeartbeatInterval < 10*time.Millisecond:
		return bad("heartbeat_interval", "%v is too short; give at least 10ms", c.HeartbeatInterval)
	case c.HeartbeatTimeout <= c.HeartbeatInterval:
		return bad("heartbeat_timeout", "%v must exceed heartbeat_interval (%v), or live peers are cut off",
			c.HeartbeatTimeout, c.HeartbeatInterval)
	case c.ReceiptInterval < 10*time.Millisecond:
		return bad("receipt_interval", "%v is too short; give at least 10ms", c.ReceiptInterval)
	case c.MessageBytesMax < 125 || c.MessageBytesMax > messageBytesCeiling:
		return bad("message_bytes_max", "%d is out of range; give 125 to %d", c.MessageBytesMax, messageBytesCeiling)
	case c.Processes > 1 && c.MessageBytesMax > membership.SharedBytesMax:
		return bad("message_bytes_max", "%d is more than one worker can send to another; give at most %d, or processes: 1",
			c.MessageBytesMax, membership.SharedBytesMax)
	case c.MessageRate == 0 && c.MessageBurst > 0:
		return bad("message_burst", "it needs message_rate, and that is 0; set message_rate, or leave message_burst out")
	case c.MessageRate == 0 && c.MessageStrikes > 0:
		return bad("message_strikes", "it needs message_rate, and that is 0; set message_rate, or leave message_strikes out")
	case c.BusURL != "" && c.DataDir != "":
		return bad("data_dir", "the NATS server of bus_url keeps the sessions; leave one of the two empty")
	case c.BusURL != "" && c.Processes == 1:
		return bad("bus_url", "a single process needs no bus; give processes of 2 or more, or leave it empty")
	case c.BusCredentials != "" && c.BusURL == "":
		return bad("bus_credentials", "it needs bus_url, and that is empty; set bus_url, or leave bus_credentials out")
	case c.BacklogHardBytes < c.BacklogSoftBytes:
		return bad("backlog_hard_bytes", "%d is below backlog_soft_bytes (%d); give at least that", c.BacklogHardBytes, c.BacklogSoftBytes)
	case c.BacklogHardBytes < c.MessageBytesMax:
		return bad("backlog_hard_bytes", "%d is below message_bytes_max (%d), so that two messages in a row would end a "+
			"healthy receiver; give at least that, or leave it out", c.BacklogHardBytes, c.MessageBytesMax)
	}
	if hint := settings.CheckBusURL(c.BusURL, c.BusCredentials != ""); hint != "" {
		return bad("bus_url", "%s", hint)
	}
	if err := c.checkTexts(); err != nil {
		return err
	}
	if _, hint := settings.ParseHistory(c.History); hint != "" {
		return bad("history", "%s", hint)
	}
	trust, err := proxy.NewTrust(c.TrustedProxies)
	switch {
	case err != nil:
		return bad("trusted_proxies", "%v", err)
	case c.ProxyProtocol && !trust.Anybody():
		return bad("proxy_protocol", "every connection would be refused, because trusted_proxies is empty; list the proxies in trusted_proxies")
	case c.ProxyHeader != "" && !slices.Contains(proxy.FieldNames, strings.ToLower(c.ProxyHeader)):
		return bad("proxy_header", "%q is none of %s", c.ProxyHeader, strings.Join(proxy.FieldNames, ", "))
	case c.ProxyHeader != "" && !trust.Anybody():
		return bad("proxy_header", "the field would be ignored, because trusted_proxies is empty; list the proxies in trusted_proxies")
	}
	return nil
}

// BacklogDefaults are the defaults of BacklogSoftBytes and BacklogHardBytes. A burst of messages that a healthy client reads
// a little late must not end it, neither at once nor after the grace.
func BacklogDefaults(messageBytesMax int) (soft, hard int) {
	soft = max(256<<10, 4*messageBytesMax)
	return soft, max(2<<20, min(32*messageBytesMax, 16<<20), 8*messageBytesMax)
}

const (
	loopsMax            = 255      // the loop's number takes eight bits of a connection id
	messageBytesCeiling = 64 << 20 // larger data belongs into an upload
)
