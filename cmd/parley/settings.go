package main

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
)

// settings are all settings of serve: the engine's configuration and the command's own.
//
// Owner: the command that loaded it.
type settings struct {
	engine.Config
	AdminHost string `key:"admin_host"`
	AdminPort int    `key:"admin_port"`
	LogLevel  string `key:"log_level"`
	LogFormat string `key:"log_format"`

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
		LogLevel:  "info",
		LogFormat: "text",
	}
}

// settle sets the number of loops from the machine's cores, unless the operator has set it.
func (s *settings) settle() {
	if s.Loops == 0 {
		s.Loops = max(1, cores/s.Processes)
	}
}

// check reports the first setting that cannot work, as a *[engine.ConfigError]. serve, check-config and a reload refuse
// the same settings.
func (s *settings) check() error {
	if err := s.Config.Validate(); err != nil {
		return err
	}
	admin := s.Config // the same rules hold for both listeners
	admin.Host, admin.Port = s.AdminHost, s.AdminPort
	err := admin.Validate()
	var wrong *engine.ConfigError
	switch {
	case errors.As(err, &wrong):
		return &engine.ConfigError{Key: "admin_" + wrong.Key, Hint: wrong.Hint}
	case s.AdminPort > 0 && s.AdminPort == s.Port && meet(s.Host, s.AdminHost):
		return &engine.ConfigError{Key: "admin_port", Hint: fmt.Sprintf("%d is the server's own port; choose another, or 0 for no admin listener", s.AdminPort)}
	}
	if err := bus.CheckCredentials(s.BusCredentials); s.BusCredentials != "" && err != nil {
		return &engine.ConfigError{Key: "bus_credentials", Hint: err.Error()}
	}
	return nil
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
	"bus_url":                      "NATS server with JetStream to use as the bus between workers: nats://host:4222; empty: an embedded one. If you give it as a flag, ps shows a password in it",
	"bus_credentials":              "file with the login for bus_url: user:password, a token, or NATS credentials; read at each connect",
	"max_connections":              "live connections of each worker; 0 means its descriptor limit less a reserve",
	"max_connections_per_room":     "members of a room, on all workers together; 0 means no limit",
	"max_rooms_per_connection":     "rooms of a connection; 0 means no limit",
	"announce_members_max":         "members up to which a room announces joins and leaves; 0 means never",
	"message_bytes_max":            "largest message from a client; a larger one closes the connection (1009)",
	"message_fragments_max":        "frames of one message; more frames close the connection (1008)",
	"backlog_soft_bytes":           "backlog that a slow reader may have for backlog_grace, besides the message that is being written; by default 4 times message_bytes_max, at least 262144",
	"backlog_hard_bytes":           "backlog at which a slow reader is closed (4003); by default 32 times message_bytes_max up to 16 MiB, at least 8 times; never below message_bytes_max",
	"backlog_grace":                "how long a backlog may stay over the soft bound",
	"attributes_bytes_max":         "attributes of one connection, encoded",
	"compression":                  "permessage-deflate for clients that offer it",
	"compression_context_takeover": "keep both windows between messages: smaller, but up to 55 KiB a connection",
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
	switch v := reflect.ValueOf(in).Elem().FieldByIndex(s.index).Interface().(type) {
	case string:
		if s.key == "bus_url" {
			v = bus.RedactURL(v)
		}
		return quoted(v)
	case []string:
		if s.key == "origins" && len(v) == 0 {
			v = []string{"*"}
		}
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
	"max_connections_per_room": 0, "max_rooms_per_connection": -1, "admin_port": 0,
}

// set parses text into the setting's field. It trims white space, such as the carriage return of an env file. It refuses
// quotes around the value: it cannot tell whether they belong to it.
func (s setting) set(in *settings, text string) error {
	text = strings.TrimSpace(text)
	if strings.Trim(text, "\"'“”‘’") != text {
		return errors.New("there are quotes around the value that would be part of it; leave them out")
	}
	field := reflect.ValueOf(in).Elem().FieldByIndex(s.index)
	wrong := func() error { return fmt.Errorf("%q is not %s", text, s.kind()) }
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		d, ok := parseDuration(text)
		if !ok {
			return wrong()
		}
		if d <= 0 {
			return fmt.Errorf("%q is no time; give more than 0", text)
		}
		field.SetInt(int64(d))
	case reflect.TypeFor[[]string]():
		list, err := parseList(text)
		if err != nil {
			return wrong()
		}
		if s.key == "origins" && len(list) == 0 && text != noOrigins {
			return errors.New(`it is empty; write "*" to admit every origin, or leave the key out`)
		}
		field.Set(reflect.ValueOf(list))
	case reflect.TypeFor[bool]():
		b, err := strconv.ParseBool(text)
		if err != nil {
			return wrong()
		}
		field.SetBool(b)
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(text)
		switch {
		case errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(text, "-"):
			n = math.MaxInt // check names the largest valid value
		case err != nil:
			return wrong()
		}
		if n < 0 {
			return fmt.Errorf("%d is negative", n)
		}
		if n == 0 {
			zero, ok := zeroMeans[s.key]
			if !ok {
				return fmt.Errorf("0 means nothing here; leave the key out for the default of %s", s.text(new(defaultSettings())))
			}
			n = zero
		}
		field.SetInt(int64(n))
	default:
		return s.setText(field, text)
	}
	return nil
}

// mayBeEmpty are the keys of texts for which "" is a value: the file, directory, server or field does not exist. Lists may
// be empty, too, except origins.
var mayBeEmpty = []string{"data_dir", "bus_url", "bus_credentials", "proxy_header"}

// choices are the valid texts of keys that do not take every text.
var choices = map[string][]string{"log_level": {"debug", "info", "warn", "error"}, "log_format": {"text", "json"}}

func (s setting) setText(field reflect.Value, text string) error {
	if list := choices[s.key]; list != nil {
		for _, c := range list {
			if c == text {
				field.SetString(text)
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s%s", text, strings.Join(list, ", "), didYouMean(text, list))
	}
	switch {
	case text == "" && !slices.Contains(mayBeEmpty, s.key):
		return errors.New("the value is empty")
	case s.key == "host" || s.key == "admin_host":
		text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]") // as in a URL; check refuses other brackets
	}
	field.SetString(text)
	return nil
}

// parseDuration reads seconds, or Go's own notation.
func parseDuration(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if seconds != seconds {
			return 0, false
		}
		// A Duration holds some 292 years. A longer time becomes one that is still above every setting's range.
		return time.Duration(min(max(seconds, -9e9), 9e9) * float64(time.Second)), true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// parseList reads values between commas, or a list as YAML and JSON write it.
func parseList(text string) (list []string, err error) {
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		if err := yaml.Unmarshal([]byte(text), &list); err != nil {
			return nil, err
		}
		return slices.DeleteFunc(list, func(part string) bool { return strings.TrimSpace(part) == "" }), nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
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
