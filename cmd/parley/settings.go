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

// help is one line for each key: sentences with units, without the last full stop. A test wants a line for every key.
var help = map[string]string{
	"host":                         "The server listens on this address. 0.0.0.0 means every interface of this machine",
	"port":                         "The server listens on this port. 0 lets the kernel choose one",
	"processes":                    "The server runs as this many worker processes. 1 means one process without a bus, 0 means one process for each core",
	"loops":                        "Each worker has this many event loops. 0 divides the cores of this machine among the workers",
	"sends":                        "Writes to several connections reach the kernel in one system call (ring, which needs io_uring) or each in one of its own (plain). auto means ring where the kernel permits it",
	"heartbeat_interval":           "The server pings a client that has been silent for this long",
	"heartbeat_timeout":            "The server closes a connection that has been silent for this long, with the code 4002. It must be more than heartbeat_interval",
	"reconnection_ttl":             "A session waits for this long after its connection has ended. Then a client cannot resume it any more",
	"reconnection_max_attempts":    "A client may resume a session this many times in a row",
	"data_dir":                     "The server keeps sessions in this directory, so that they survive a restart of the whole server. Empty: they end with the server",
	"bus_url":                      "The workers use this NATS server with JetStream as their bus, like nats://host:4222. Empty: the server runs a bus of its own. A flag takes no user and no password",
	"bus_url_file":                 "This file holds the URL for bus_url with its password. The server reads it at the start",
	"bus_credentials":              "This file holds the login for bus_url: user:password, a token, or NATS credentials. The server reads it at each connect",
	"max_connections":              "Each worker accepts this many connections. 0 means its limit of descriptors less a reserve",
	"connections_per_address_max":  "Each worker accepts this many connections of one client address; a client above that gets 503. An IPv6 address counts as its /64. Behind a proxy, set trusted_proxies first. 0 means no limit",
	"max_connections_per_room":     "A room takes this many members, on all workers together. 0 means no limit",
	"max_rooms_per_connection":     "A connection may be in this many rooms at once. 0 means no limit",
	"announce_members_max":         "A room with at most this many members tells them of each join and leave. 0 means never",
	"message_bytes_max":            "A client may send messages of this many bytes. A larger message closes the connection, with the code 1009",
	"message_fragments_max":        "A client may split a message into this many frames. More frames close the connection, with the code 1008",
	"message_rate":                 "A connection may send this many messages in a second. The server answers a message above that with the error rate_limited, and does not carry it out. 0 means no limit",
	"message_burst":                "A connection with a message_rate may send this many messages at once. 0 means as many as message_rate",
	"message_strikes":              "After this many refusals by message_rate the server closes a connection, with the code 4005. It forgets them after a pause in which a whole burst could come again. 0 means never",
	"backlog_soft_bytes":           "Up to this many unread bytes may wait for a client for longer than backlog_grace, besides the message that is being written. By default it is 4 times message_bytes_max, and at least 262144",
	"backlog_hard_bytes":           "The server closes a connection for which this many unread bytes wait, with the code 4003. By default it is 32 times message_bytes_max up to 16 MiB, and at least 8 times. It cannot be below message_bytes_max",
	"backlog_grace":                "A client may have more unread bytes than backlog_soft_bytes for this long. Then the server closes its connection, with the code 4003",
	"attributes_bytes_max":         "The attributes of one connection may take this many bytes, encoded as JSON",
	"compression":                  "The server compresses messages (permessage-deflate) for clients that offer it",
	"compression_context_takeover": "Compression keeps its windows between messages. Messages get smaller, and a connection takes up to 55 KiB more memory",
	"history":                      "These rooms keep their newest messages. An entry is PATTERN=messages:100;bytes:262144;age:300s;slow:drop, of which all parts but the pattern may be left out. The first entry that matches a room counts",
	"memory_bytes_max":             "Each worker may use this many bytes for histories, sessions, unread messages and slow sockets. Above that it closes slow clients (4003), forgets histories and sessions, and refuses new clients. 0 means half of the memory that the process may use",
	"receipts":                     "The server finds out by PINGs what a client has received in rooms with history. A client that resumes without its positions then gets few messages twice",
	"receipt_interval":             "The server sends the PINGs of receipts to a client at least this far apart",
	"origins":                      "Pages of these origins may connect: https://example.com, https://*.example.com, null or file://. * admits every page",
	"subprotocols":                 "The server speaks these subprotocols, the preferred one first",
	"trusted_proxies":              "The server believes these proxies when they name a client's address: addresses, networks, loopback, private or unix. Without it the server sees the proxy's address",
	"proxy_header":                 "The trusted proxies name the client in this header field alone: x-forwarded-for, x-real-ip or forwarded. Empty: all of these fields that a request has must agree",
	"proxy_protocol":               "Every connection must come from a trusted proxy and begin with a header of the PROXY protocol",
	"handshake_timeout":            "A client has this long to send its opening handshake",
	"handshake_bytes_max":          "The request of an opening handshake may have this many bytes, with cookies. A larger one gets 431",
	"handshake_fields_max":         "The request of an opening handshake may have this many header fields. One with more gets 431",
	"auth_timeout":                 "A client that authenticates by its first message has this long to send that message",
	"offload_workers":              "Each kind of handler that may block (connect, auth, offloaded) has this many goroutines",
	"offload_timeout":              "A connect handler or an offloaded handler may take this long, with its wait for a goroutine",
	"shutdown_timeout":             "The server waits for its clients for this long when it shuts down",
	"admin_host":                   "The admin listener (chat page, health, stats, metrics) has this address. It has no authentication, so keep it on this machine",
	"admin_port":                   "The admin listener has this port. 0 turns it off",
	"api_host":                     "The HTTP API listens on this address. Beyond this machine it needs a key in keys, in api_keys_file or in PARLEY_API_KEY",
	"api_port":                     "The HTTP API for backends listens on this port. 0 turns it off",
	"api_keys_file":                "This file holds keys of the HTTP API, as parley key create prints them. The server reads it again on SIGHUP",
	"auth":                         "off: every client may connect and join. optional: a client may show a token. required: every client must show one, in the handshake or by its first message",
	"jwt_secret_file":              "This file holds the secret of tokens that are signed with HMAC, at least 32 bytes",
	"jwt_keys_file":                "This file holds the public keys of tokens, as PEM or as a JWK set. The server reads it again on SIGHUP",
	"jwt_jwks_url":                 "The server fetches the public keys of tokens as a JWK set from this URL: https, or http on this machine. It needs jwt_audience",
	"jwt_algorithms":               "Tokens may be signed with these algorithms. Empty: HS256 with a secret; ES256, RS256, PS256 and EdDSA with keys",
	"jwt_issuer":                   "A token must have this iss. Empty: any",
	"jwt_audience":                 "A token must have this aud. Empty: any",
	"jwt_claim":                    "The claim of this name holds the rights of a token",
	"jwt_leeway":                   "The clocks of the issuer and of the server may differ by this much",
	"jwt_grace":                    "A connection stays for this long after its token has ended, so that the client can show another token",
	"jwt_cookie":                   "Browsers show their token in this cookie. It needs origins. Empty: the server looks at no cookie",
	"jwt_query":                    "The server looks for a token in ?token= of the URL, too. Proxies and their logs may keep that URL",
	"examples":                     "The server knows the messages chat, private and whoami of the examples. By default it does while auth is off",
	"show_users":                   "The server tells clients the users of other clients, in broadcast, member_joined, member_left and members",
	"log_level":                    "The server logs lines of this level and above: debug, info, warn or error",
	"log_format":                   "The server writes its log as text or as json",
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
		if strings.Contains(t.setting.key, "_bytes") {
			return "bytes"
		}
		return "n"
	}
	return "text"
}

func flagNames(cmd *cobra.Command) []string {
	var list []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { list = append(list, f.Name) })
	return list
}
