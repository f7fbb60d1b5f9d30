package main

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/api"
	"github.com/parleyd/parley/engine/cluster/bus"
)

// settings are all settings of serve: the engine's configuration and the command's own.
//
// Owner: the command that loaded it.
type settings struct {
	engine.Config
	BusURLFile  string `key:"bus_url_file"`
	AdminHost   string `key:"admin_host"`
	AdminPort   int    `key:"admin_port"`
	APIHost     string `key:"api_host"`
	APIPort     int    `key:"api_port"`
	APIKeysFile string `key:"api_keys_file"`
	LogLevel    string `key:"log_level"`
	LogFormat   string `key:"log_format"`

	Auth          string        `key:"auth"`
	JWTSecretFile string        `key:"jwt_secret_file"`
	JWTKeysFile   string        `key:"jwt_keys_file"`
	JWTJWKSURL    string        `key:"jwt_jwks_url"`
	JWTAlgorithms []string      `key:"jwt_algorithms"`
	JWTIssuer     string        `key:"jwt_issuer"`
	JWTAudience   string        `key:"jwt_audience"`
	JWTClaim      string        `key:"jwt_claim"`
	JWTLeeway     time.Duration `key:"jwt_leeway"`
	JWTGrace      time.Duration `key:"jwt_grace"`
	JWTCookie     string        `key:"jwt_cookie"`
	JWTQuery      bool          `key:"jwt_query"`
	Examples      bool          `key:"examples"`
	ShowUsers     bool          `key:"show_users"`
	Receipts      bool          `key:"receipts"`
	// Rules are those of the file's section rooms.
	Rules []access.Entry `key:"-"`
	// Keys are the keys of the API: those of the file's section, of api_keys_file and of the variable.
	Keys []api.KeyEntry `key:"-"`

	keyURL *access.KeyURL // once it is open

	runKey *runKey // made for this run; nil if the operator has given keys

	empty string   // the path of a file that holds no setting; "" for none
	notes []string // warnings for the operator, a sentence each
}

func defaultSettings() settings {
	cfg := engine.DefaultConfig()
	cfg.Loops = 0 // settle sets it
	return settings{
		Config:    cfg,
		AdminHost: "127.0.0.1",
		AdminPort: 9091,
		APIHost:   "127.0.0.1",
		APIPort:   9092,
		Auth:      "off",
		JWTClaim:  "parley",
		JWTLeeway: 10 * time.Second,
		JWTGrace:  30 * time.Second,
		Examples:  true,
		ShowUsers: true,
		Receipts:  true,
		LogLevel:  "info",
		LogFormat: "text",
	}
}

// settle sets what follows from other settings: the number of loops from the machine's cores, unless the operator has set it;
// the subprotocol beside which pages offer their tokens; whether users are hidden, and receipts off.
func (s *settings) settle() {
	if s.Auth != "off" && !slices.Contains(s.Subprotocols, access.Subprotocol) {
		s.Subprotocols = append(slices.Clip(s.Subprotocols), access.Subprotocol)
	}
	if s.Loops == 0 {
		s.Loops = max(1, cores/s.Processes)
	}
	s.HideUsers, s.NoReceipts = !s.ShowUsers, !s.Receipts
}

// check reports the first setting that cannot work, as a *[engine.ConfigError]. serve, check-config and a reload refuse
// the same settings.
func (s *settings) check() error {
	if err := s.Config.Validate(); err != nil {
		return err
	}
	if err := s.checkListener("admin_", s.AdminHost, s.AdminPort); err != nil {
		return err
	}
	if err := s.checkListener("api_", s.APIHost, s.APIPort); err != nil {
		return err
	}
	if err := s.checkTokens(); err != nil {
		return err
	}
	switch {
	case s.APIPort > 0 && s.APIPort == s.AdminPort && meet(s.APIHost, s.AdminHost):
		return &engine.ConfigError{Key: "api_port", Hint: fmt.Sprintf("%d is admin_port, too; choose another, or 0 for no API", s.APIPort)}
	case s.APIPort > 0 && len(s.Keys) == 0 && !isLoopback(s.APIHost):
		return &engine.ConfigError{Key: "api_host", Hint: s.APIHost + " is reached from other machines, and there is no key: make one with `parley key create`, " +
			"and name its file in api_keys_file; or keep 127.0.0.1, or set api_port to 0"}
	}
	if err := bus.CheckCredentials(s.BusCredentials); s.BusCredentials != "" && err != nil {
		return &engine.ConfigError{Key: "bus_credentials", Hint: err.Error()}
	}
	return nil
}

// checkListener holds one more listener to the rules of host and port.
func (s *settings) checkListener(prefix, host string, port int) error {
	other := s.Config
	other.Host, other.Port = host, port
	err := other.Validate()
	var wrong *engine.ConfigError
	switch {
	case errors.As(err, &wrong):
		return &engine.ConfigError{Key: prefix + wrong.Key, Hint: wrong.Hint}
	case port > 0 && port == s.Port && meet(s.Host, host):
		return &engine.ConfigError{Key: prefix + "port", Hint: fmt.Sprintf("%d is the server's own port; choose another, or 0 for none", port)}
	}
	return nil
}

// isLoopback reports whether a listener on host is reached from this machine alone.
func isLoopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// meet reports whether listeners on two hosts conflict if their port is the same.
func meet(a, b string) bool {
	a, b = strings.ReplaceAll(strings.ToLower(a), "localhost", "127.0.0.1"), strings.ReplaceAll(strings.ToLower(b), "localhost", "127.0.0.1")
	x, _ := netip.ParseAddr(a)
	y, _ := netip.ParseAddr(b)
	return a == b || x.IsValid() && (x == y || x.IsUnspecified()) || y.IsUnspecified()
}

// setting is one key: its name, its help, its field and its type.
//
// Owner: immutable.
type setting struct {
	key   string
	help  string
	index []int // of the field in settings
	typ   reflect.Type
}

func (s setting) flag() string     { return strings.ReplaceAll(s.key, "_", "-") }
func (s setting) variable() string { return envPrefix + strings.ToUpper(s.key) }

const envPrefix = "PARLEY_"

// help is one line for each key. A test wants a line for every key.
var help = map[string]string{
	"host":                         "address to listen on; 0.0.0.0 for all interfaces",
	"port":                         "port to listen on; 0 lets the kernel choose",
	"processes":                    "worker processes that are one server; 0 means one per core, 1 means no supervisor and no bus",
	"loops":                        "event loops of each worker; 0 divides the cores among the workers",
	"heartbeat_interval":           "silence after which the server pings a client",
	"heartbeat_timeout":            "silence after which the server closes a client (4002)",
	"reconnection_ttl":             "how long a session outlives its connection",
	"reconnection_max_attempts":    "how often in a row a session may be resumed",
	"data_dir":                     "directory that keeps sessions over a restart of the whole server; empty: sessions end with the server",
	"bus_url":                      "NATS server with JetStream to use as the bus between workers: nats://host:4222; empty: an embedded one. A flag takes no user and no password",
	"bus_url_file":                 "file with the URL of bus_url and its password, in place of bus_url; read at the start",
	"bus_credentials":              "file with the login for bus_url: user:password, a token, or NATS credentials; read at each connect",
	"max_connections":              "live connections of each worker; 0 means its descriptor limit less a reserve",
	"connections_per_address_max":  "live connections of one client address on each worker; more get 503; an IPv6 address counts as its /64; behind a proxy name it in trusted_proxies; 0 means no limit",
	"max_connections_per_room":     "members of a room, on all workers together; 0 means no limit",
	"max_rooms_per_connection":     "rooms of a connection; 0 means no limit",
	"announce_members_max":         "members up to which a room announces joins and leaves; 0 means never",
	"message_bytes_max":            "largest message from a client; a larger one closes the connection (1009)",
	"message_fragments_max":        "frames of one message; more frames close the connection (1008)",
	"message_rate":                 "messages that a connection may send in a second; one above it gets the error rate_limited and is not carried out; 0 means no limit",
	"message_burst":                "messages of message_rate that may come at once; 0 means as many as message_rate",
	"message_strikes":              "refusals by message_rate with which a connection is closed (4005); forgotten when it has sent so little that a whole burst may come again; 0 means never",
	"backlog_soft_bytes":           "backlog that a slow reader may have for backlog_grace, besides the message that is being written; by default 4 times message_bytes_max, at least 262144",
	"backlog_hard_bytes":           "backlog at which a slow reader is closed (4003); by default 32 times message_bytes_max up to 16 MiB, at least 8 times; never below message_bytes_max",
	"backlog_grace":                "how long a backlog may stay over the soft bound",
	"attributes_bytes_max":         "attributes of one connection, encoded",
	"compression":                  "permessage-deflate for clients that offer it",
	"compression_context_takeover": "keep both windows between messages: smaller, but up to 55 KiB a connection",
	"history":                      "rooms that keep their newest messages: PATTERN=messages:100;bytes:262144;age:300s;slow:drop, where the first match counts and parts may be left out",
	"memory_bytes_max":             "memory of each worker for histories, sessions, unread messages and slow sockets; beyond it slow clients are closed (4003), histories and sessions forgotten, and newcomers refused; 0 means half of what the process may use",
	"receipts":                     "PINGs that prove what a client has received, in rooms with history: then a client that resumes without its positions gets little twice",
	"receipt_interval":             "time between two such PINGs to a client, at the least",
	"origins":                      "origins whose pages may connect: https://example.com, https://*.example.com, null, file://; * admits all",
	"subprotocols":                 "subprotocols that the server speaks, the preferred first",
	"trusted_proxies":              "proxies that may name a client's address, or you see the proxy's: addresses, networks, loopback, private, unix",
	"proxy_header":                 "the one header field that the trusted proxies set: x-forwarded-for, x-real-ip or forwarded; empty: all such fields of a request must agree",
	"proxy_protocol":               "every connection begins with a PROXY protocol header, from a trusted proxy",
	"handshake_timeout":            "how long an opening handshake may take",
	"handshake_bytes_max":          "largest head of an opening handshake, cookies included; a larger one gets 431",
	"handshake_fields_max":         "header fields of an opening handshake; more gets 431",
	"auth_timeout":                 "how long the first message may take if clients authenticate by message",
	"offload_workers":              "goroutines for each kind of handler that may block: connect, auth, offloaded",
	"offload_timeout":              "how long one run of a connect or offloaded handler may take, the wait for a goroutine included",
	"shutdown_timeout":             "how long shutdown waits for clients",
	"admin_host":                   "address of the admin listener",
	"admin_port":                   "port of the admin listener: chat page, health, stats, metrics; 0 turns it off",
	"api_host":                     "address of the HTTP API; beyond loopback it needs a key in keys, api_keys_file or PARLEY_API_KEY",
	"api_port":                     "port of the HTTP API for backends; 0 turns it off",
	"api_keys_file":                "file with keys of the HTTP API, as parley key create prints them; read again on SIGHUP",
	"auth":                         "off: every client may connect and join; optional: a client may show a token; required: it must, in the handshake or by its first message",
	"jwt_secret_file":              "file with the secret of HMAC tokens, at least 32 bytes",
	"jwt_keys_file":                "file with the public keys of tokens: PEM, or a JWK set; read again on SIGHUP",
	"jwt_jwks_url":                 "URL of a JWK set with the public keys of tokens: https, or http on this machine; demands jwt_audience",
	"jwt_algorithms":               "algorithms that tokens may have; empty: HS256 with a secret; ES256, RS256, PS256 and EdDSA with keys",
	"jwt_issuer":                   "iss that a token must have; empty: any",
	"jwt_audience":                 "aud that a token must have; empty: any",
	"jwt_claim":                    "name of the claim with a token's rights",
	"jwt_leeway":                   "how far the clocks of issuer and server may differ",
	"jwt_grace":                    "how long a connection stays after the end of its token, in which it can show another",
	"jwt_cookie":                   "cookie in which browsers bring a token; demands origins; empty: none",
	"jwt_query":                    "look for a token in ?token= of the URL, too; proxies and logs may keep it",
	"examples":                     "the message types chat, private and whoami of the demonstration; by default while auth is off",
	"show_users":                   "tell clients the users of the others: in broadcast, member_joined, member_left and members",
	"log_level":                    "debug, info, warn or error",
	"log_format":                   "text or json",
}

// table lists all settings, in the order of the structs.
var table = settingsOf(reflect.TypeFor[settings](), nil)

func settingsOf(t reflect.Type, prefix []int) []setting {
	var list []setting
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(append([]int(nil), prefix...), i)
		if f.Anonymous {
			list = append(list, settingsOf(f.Type, index)...)
			continue
		}
		if key := f.Tag.Get("key"); key != "-" && f.IsExported() {
			list = append(list, setting{key: key, help: help[key], index: index, typ: f.Type})
		}
	}
	return list
}

func findSetting(key string) (setting, bool) {
	for _, s := range table {
		if s.key == key {
			return s, true
		}
	}
	return setting{}, false
}

func keys() []string {
	var list []string
	for _, s := range table {
		list = append(list, s.key)
	}
	return list
}

// text is the value of s as it would be written in a file.
func (s setting) text(in *settings) string {
	switch v := reflect.ValueOf(in).Elem().FieldByIndex(s.index).Interface().(type) {
	case time.Duration:
		return strconv.FormatFloat(v.Seconds(), 'g', -1, 64)
	case []string:
		if s.key == "origins" && len(v) == 0 {
			return "[*]" // set refuses an empty list
		}
		return "[" + strings.Join(v, ", ") + "]"
	case int:
		if zero, ok := zeroMeans[s.key]; ok && zero < 0 && v == zero {
			return "0"
		}
		return strconv.Itoa(v)
	default:
		return fmt.Sprint(v)
	}
}

// yaml is the value of s in the notation of a file. It shows no secret of bus_url.
func (s setting) yaml(in *settings) string {
	switch v := s.shown(in).(type) {
	case string:
		if s.key == "bus_url" && in.BusURLFile != "" {
			v = "" // it came from there
		}
		return quoted(v)
	case []string:
		list := make([]string, len(v))
		for i, text := range v {
			list[i] = quoted(text)
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return s.text(in)
}

// plainText matches texts that mean the same in YAML with and without quotes.
var plainText = regexp.MustCompile(`^[A-Za-z0-9/.][A-Za-z0-9/._@:-]*[A-Za-z0-9/._@-]$`)

func quoted(text string) string {
	if !plainText.MatchString(text) || strings.EqualFold(text, "null") {
		return strconv.Quote(text)
	}
	return text
}

// kind describes the values of s to a person.
func (s setting) kind() string {
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		return "seconds (30, 0.5) or a duration (30s, 5m)"
	case reflect.TypeFor[[]string]():
		return "a list"
	case reflect.TypeFor[bool]():
		return "true or false"
	case reflect.TypeFor[int]():
		return "a whole number"
	default:
		return "text"
	}
}

// zeroMeans are the keys for which 0 has a meaning, with the engine's value for it. For other keys 0 would silently
// become the default, and is refused.
var zeroMeans = map[string]int{
	"port": -1, "announce_members_max": -1, "processes": cores, "loops": 0, "max_connections": 0,
	"max_connections_per_room": 0, "max_rooms_per_connection": -1, "admin_port": 0, "api_port": 0,
	"connections_per_address_max": 0, "message_rate": 0, "message_burst": 0, "message_strikes": 0, "memory_bytes_max": 0,
}

// addFlags gives a command a flag for each setting. Values stay text here: load parses all sources alike.
func addFlags(cmd *cobra.Command) {
	cmd.Flags().String("config", "", "YAML or JSON file with settings ("+envPrefix+"CONFIG)")
	d := defaultSettings()
	for _, s := range table {
		f := &pflag.Flag{Name: s.flag(), Usage: s.help, Value: &textFlag{text: s.text(&d), setting: s}}
		f.DefValue = s.text(&d)
		if s.typ == reflect.TypeFor[bool]() {
			f.NoOptDefVal = "true"
		}
		cmd.Flags().AddFlag(f)
	}
	cmd.SetUsageFunc(usage)
}

// textFlag is a flag's value as it was written.
type textFlag struct {
	text    string
	setting setting
}

func (t *textFlag) String() string     { return t.text }
func (t *textFlag) Set(s string) error { t.text = s; return nil }

// Type is the word for the value in a command's help.
func (t *textFlag) Type() string {
	switch t.setting.typ {
	case reflect.TypeFor[time.Duration]():
		return "seconds"
	case reflect.TypeFor[[]string]():
		return "list"
	case reflect.TypeFor[bool]():
		return ""
	case reflect.TypeFor[int]():
		return "n"
	}
	return "text"
}

func flagNames(cmd *cobra.Command) []string {
	var list []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { list = append(list, f.Name) })
	return list
}
