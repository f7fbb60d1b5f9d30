package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/protocol/proxy"
)

// Config is everything that a server can be told. The zero value of a field means its default, except
// where the field says otherwise; [DefaultConfig] spells the defaults out. The `key` tag is the name in
// a file, in the environment (PARLEY_ and upper case) and as a flag (with dashes).
//
// Owner: immutable after New.
type Config struct {
	// Host is the address to listen on. 127.0.0.1 unless told; 0.0.0.0 or :: for all interfaces.
	Host string `key:"host"`
	// Port to listen on, 1 to 65535; -1 lets the kernel choose (see Server.Addr).
	Port int `key:"port"`
	// Processes is the number of workers that are one server; more than one is for package cluster.
	Processes int `key:"processes"`
	// Loops is the number of event loops; 0 means one per core that Go may use.
	Loops int `key:"loops"`

	// HeartbeatInterval is the silence after which the server asks for a sign of life, and asks again.
	HeartbeatInterval time.Duration `key:"heartbeat_interval"`
	// HeartbeatTimeout is the silence after which a connection is closed with 4002. It must exceed the interval.
	HeartbeatTimeout time.Duration `key:"heartbeat_timeout"`

	// ReconnectionTTL is how long a session outlives its connection.
	ReconnectionTTL time.Duration `key:"reconnection_ttl"`
	// ReconnectionMaxAttempts is how often in a row a session may be resumed.
	ReconnectionMaxAttempts int `key:"reconnection_max_attempts"`
	// DataDir is the directory where sessions are kept over a restart of the whole server; empty: they end with it.
	// It is for package cluster.
	DataDir string `key:"data_dir"`
	// BusURL names a NATS server with JetStream, and an account of it that nobody else uses, which is the bus of several
	// Processes in place of our own: nats://user:password@host:4222, tls:// for an encrypted connection, several
	// separated by commas. It keeps sessions as DataDir does. Empty: the bus is a process of ours. It is for package
	// cluster.
	BusURL string `key:"bus_url"`
	// BusCredentials is the file that says who we are to BusURL, in place of a user in the URL: user:password, a token, or
	// what NATS calls credentials. It is read at each connect, so that it may be replaced.
	BusCredentials string `key:"bus_credentials"`

	// MaxConnections is the number of live connections; 0 means the descriptor limit less a reserve.
	MaxConnections int `key:"max_connections"`
	// MaxConnectionsPerRoom bounds every room that was not created with a bound of its own; 0 means none.
	MaxConnectionsPerRoom int `key:"max_connections_per_room"`
	// MaxRoomsPerConnection bounds the rooms that one connection may be in; negative means no limit.
	MaxRoomsPerConnection int `key:"max_rooms_per_connection"`
	// AnnounceMembersMax is the size up to which a room announces who joins and leaves; negative means never.
	AnnounceMembersMax int `key:"announce_members_max"`

	// MessageBytesMax bounds one message from a client, after inflating; more is closed with 1009. At most 64 MiB, and
	// 8,323,072 with several Processes: more does not fit between them.
	MessageBytesMax int `key:"message_bytes_max"`
	// MessageFragmentsMax bounds the frames of one message; more is closed with 1008.
	MessageFragmentsMax int `key:"message_fragments_max"`
	// BacklogSoftBytes is the backlog above which a connection may stay for BacklogGrace. The message that is being
	// written does not count. By default four messages of MessageBytesMax, and at least 256 KiB.
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
	// CompressionContextTakeover keeps both windows between messages, where the client lets us: smaller, but up
	// to 55 KiB a connection, and broadcasts are compressed once for each recipient instead of once for all.
	CompressionContextTakeover bool `key:"compression_context_takeover"`

	// Origins lists the origins whose pages may connect: scheme://host[:port]; scheme://*.host for all hosts below one;
	// null and file://, which pages without an address send; "*" for every origin, as an empty list does. Only "*" lifts
	// a list that is in force: see Server.Reload.
	Origins []string `key:"origins"`
	// Subprotocols lists the subprotocols that the server speaks, the preferred first.
	Subprotocols []string `key:"subprotocols"`
	// TrustedProxies lists whose word is taken for a client's address: addresses, networks (10.0.0.0/8), loopback,
	// private (RFC 1918 and fc00::/7), unix. Empty trusts nobody; X-Forwarded-For and its like then count for nothing.
	// Never list a network that clients connect from.
	TrustedProxies []string `key:"trusted_proxies"`
	// ProxyHeader names the one header field in which the trusted proxies name the client: x-forwarded-for, x-real-ip or
	// forwarded. The others are then not looked at. Empty: all that are there must agree, or the handshake is refused.
	ProxyHeader string `key:"proxy_header"`
	// ProxyProtocol wants every connection to begin with a header of the PROXY protocol, version 1 or 2, and to come
	// from a trusted proxy. All others are refused.
	ProxyProtocol bool `key:"proxy_protocol"`
	// HandshakeTimeout bounds the arrival of the opening handshake.
	HandshakeTimeout time.Duration `key:"handshake_timeout"`
	// HandshakeBytesMax bounds the opening handshake's head: request line and header fields, cookies too. More gets 431.
	HandshakeBytesMax int `key:"handshake_bytes_max"`
	// HandshakeFieldsMax bounds its header fields. More gets 431.
	HandshakeFieldsMax int `key:"handshake_fields_max"`
	// AuthTimeout bounds the wait for the first message of a connection that must authenticate by message.
	AuthTimeout time.Duration `key:"auth_timeout"`
	// OffloadWorkers bounds the goroutines that run connect handlers, those that run auth handlers, and those that run
	// offloaded handlers: each kind has as many of its own.
	OffloadWorkers int `key:"offload_workers"`
	// OffloadTimeout bounds one run of a connect handler or an offloaded handler, the wait for a worker included.
	OffloadTimeout time.Duration `key:"offload_timeout"`
	// ShutdownTimeout bounds the leave-taking.
	ShutdownTimeout time.Duration `key:"shutdown_timeout"`

	// Bare takes the envelope away: no greeting, no JSON ping, no routing; every message, text or binary,
	// goes to the raw handler. For echo servers and protocols of one's own; no setting of a file.
	Bare bool `key:"-"`
}

// DefaultConfig is the configuration of a server that was told nothing.
func DefaultConfig() Config {
	return Config{
		Host:                    "127.0.0.1",
		Port:                    9090,
		Processes:               1,
		Loops:                   runtime.GOMAXPROCS(0),
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
		OffloadWorkers:          1024,
		OffloadTimeout:          30 * time.Second,
		ShutdownTimeout:         5 * time.Second,
	}
}

// A ConfigError names the key that is wrong and says what to change.
type ConfigError struct {
	Key  string // as in a configuration file
	Hint string // what is wrong and what would be right, one sentence
}

func (e *ConfigError) Error() string { return e.Key + ": " + e.Hint }

// withDefaults replaces zero values by defaults and checks the result.
func (c Config) withDefaults() (Config, error) {
	d := DefaultConfig()
	or(&c.Host, d.Host)
	c.Host = bareHost(c.Host)
	or(&c.Port, d.Port)
	or(&c.Processes, d.Processes)
	or(&c.Loops, max(1, d.Loops/c.Processes))
	or(&c.HeartbeatInterval, d.HeartbeatInterval)
	or(&c.HeartbeatTimeout, max(d.HeartbeatTimeout, 2*c.HeartbeatInterval))
	or(&c.ReconnectionTTL, d.ReconnectionTTL)
	or(&c.ReconnectionMaxAttempts, d.ReconnectionMaxAttempts)
	or(&c.MaxRoomsPerConnection, d.MaxRoomsPerConnection)
	or(&c.AnnounceMembersMax, d.AnnounceMembersMax)
	or(&c.MessageBytesMax, d.MessageBytesMax)
	or(&c.MessageFragmentsMax, d.MessageFragmentsMax)
	soft, hard := BacklogDefaults(c.MessageBytesMax)
	unsay(&c.BacklogSoftBytes, d.BacklogSoftBytes) // they follow MessageBytesMax in a DefaultConfig, too
	unsay(&c.BacklogHardBytes, d.BacklogHardBytes)
	if c.BacklogHardBytes > 0 {
		soft = min(soft, c.BacklogHardBytes)
	}
	or(&c.BacklogSoftBytes, soft)
	or(&c.BacklogHardBytes, max(hard, c.BacklogSoftBytes))
	or(&c.BacklogGrace, d.BacklogGrace)
	or(&c.AttributesBytesMax, d.AttributesBytesMax)
	or(&c.HandshakeTimeout, d.HandshakeTimeout)
	or(&c.HandshakeBytesMax, d.HandshakeBytesMax)
	or(&c.HandshakeFieldsMax, d.HandshakeFieldsMax)
	or(&c.AuthTimeout, d.AuthTimeout)
	or(&c.OffloadWorkers, d.OffloadWorkers)
	or(&c.OffloadTimeout, d.OffloadTimeout)
	or(&c.ShutdownTimeout, d.ShutdownTimeout)
	return c.clone(), c.Validate()
}

// clone shares no list with c.
func (c Config) clone() Config {
	c.Origins, c.Subprotocols, c.TrustedProxies = slices.Clone(c.Origins), slices.Clone(c.Subprotocols), slices.Clone(c.TrustedProxies)
	return c
}

// processesMax is far beyond what one machine has cores for.
const processesMax = 256

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// unsay takes a default for nothing said.
func unsay(field *int, standard int) {
	if *field == standard {
		*field = 0
	}
}

// Validate reports the first setting that cannot work, as a *[ConfigError].
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
	case c.HeartbeatInterval < 10*time.Millisecond:
		return bad("heartbeat_interval", "%v is too short; give at least 10ms", c.HeartbeatInterval)
	case c.HeartbeatTimeout <= c.HeartbeatInterval:
		return bad("heartbeat_timeout", "%v must exceed heartbeat_interval (%v), or live peers are cut off",
			c.HeartbeatTimeout, c.HeartbeatInterval)
	case c.MessageBytesMax < 125 || c.MessageBytesMax > messageBytesCeiling:
		return bad("message_bytes_max", "%d is out of range; give 125 to %d", c.MessageBytesMax, messageBytesCeiling)
	case c.Processes > 1 && c.MessageBytesMax > sharedBytesMax:
		return bad("message_bytes_max", "%d is more than one worker can send to another; give at most %d, or processes: 1",
			c.MessageBytesMax, sharedBytesMax)
	case c.BusURL != "" && c.DataDir != "":
		return bad("data_dir", "the NATS server of bus_url keeps the sessions; leave one of the two empty")
	case c.BusURL != "" && c.Processes == 1:
		return bad("bus_url", "a single process needs no bus; give processes of 2 or more, or leave it empty")
	case c.BusCredentials != "" && c.BusURL == "":
		return bad("bus_credentials", "they are for the NATS server of bus_url, and that is empty")
	case c.BacklogHardBytes < c.BacklogSoftBytes:
		return bad("backlog_hard_bytes", "%d is below backlog_soft_bytes (%d)", c.BacklogHardBytes, c.BacklogSoftBytes)
	case c.BacklogHardBytes < c.MessageBytesMax:
		return bad("backlog_hard_bytes", "%d is below message_bytes_max (%d), so that two messages in a row would end a "+
			"healthy receiver; give at least that, or leave it out", c.BacklogHardBytes, c.MessageBytesMax)
	}
	if hint := checkBusURL(c.BusURL, c.BusCredentials != ""); hint != "" {
		return bad("bus_url", "%s", hint)
	}
	if err := c.checkTexts(); err != nil {
		return err
	}
	trust, err := proxy.NewTrust(c.TrustedProxies)
	switch {
	case err != nil:
		return bad("trusted_proxies", "%v", err)
	case c.ProxyProtocol && !trust.Anybody():
		return bad("proxy_protocol", "every connection would be refused, because trusted_proxies is empty; list the proxies in trusted_proxies")
	case c.ProxyHeader != "" && !slices.Contains(proxyHeaders, strings.ToLower(c.ProxyHeader)):
		return bad("proxy_header", "%q is none of %s", c.ProxyHeader, strings.Join(proxyHeaders, ", "))
	case c.ProxyHeader != "" && !trust.Anybody():
		return bad("proxy_header", "the field would be ignored, because trusted_proxies is empty; list the proxies in trusted_proxies")
	}
	return nil
}

// proxyHeaders are the fields that ProxyHeader may name.
var proxyHeaders = []string{"x-forwarded-for", "x-real-ip", "forwarded"}

// BacklogDefaults are BacklogSoftBytes and BacklogHardBytes where nothing else is said: a burst of messages that a healthy
// client is a little late to read ends it neither at once nor after the grace.
func BacklogDefaults(messageBytesMax int) (soft, hard int) {
	soft = max(256<<10, 4*messageBytesMax)
	return soft, max(2<<20, min(32*messageBytesMax, 16<<20), 8*messageBytesMax)
}

const (
	loopsMax            = 255      // the loop's number takes eight bits of a connection id
	messageBytesCeiling = 64 << 20 // a larger message belongs into an upload
	// sharedBytesMax bounds a message between workers: the bus takes 8 MiB at once, with what goes beside the message.
	sharedBytesMax = 8<<20 - 64<<10
)
