package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// everyKey gives each key a value that is not its default, as it is written and as it must arrive.
var everyKey = map[string]struct {
	text string
	want any
}{
	"host":                         {"0.0.0.0", "0.0.0.0"},
	"port":                         {"1234", 1234},
	"processes":                    {"4", 4},
	"loops":                        {"97", 97},
	"heartbeat_interval":           {"7", 7 * time.Second},
	"heartbeat_timeout":            {"1m31s", 91 * time.Second},
	"reconnection_ttl":             {"0.5", 500 * time.Millisecond},
	"reconnection_max_attempts":    {"6", 6},
	"data_dir":                     {"/var/lib/parley", "/var/lib/parley"},
	"bus_url":                      {"nats://127.0.0.1:4222", "nats://127.0.0.1:4222"},
	"bus_url_file":                 {"testdata/bus_url", "testdata/bus_url"},
	"bus_credentials":              {"testdata/bus", "testdata/bus"},
	"max_connections":              {"1001", 1001},
	"connections_per_address_max":  {"12", 12},
	"message_rate":                 {"20", 20},
	"message_burst":                {"40", 40},
	"message_strikes":              {"5", 5},
	"max_connections_per_room":     {"102", 102},
	"max_rooms_per_connection":     {"11", 11},
	"announce_members_max":         {"0", -1}, // never, as the engine calls it
	"show_users":                   {"false", false},
	"memory_bytes_max":             {"1000000000", 1000000000},
	"sends":                        {"plain", "plain"},
	"receipts":                     {"false", false},
	"receipt_interval":             {"4s", 4 * time.Second},
	"history":                      {"chat:*=messages:7;slow:conflate, **", []string{"chat:*=messages:7;slow:conflate", "**"}},
	"message_bytes_max":            {"4096", 4096},
	"message_fragments_max":        {"17", 17},
	"backlog_soft_bytes":           {"70000", 70000},
	"backlog_hard_bytes":           {"3000000", 3000000},
	"backlog_grace":                {"3s", 3 * time.Second},
	"attributes_bytes_max":         {"999", 999},
	"compression":                  {"true", true},
	"compression_context_takeover": {"true", true},
	"origins":                      {"https://a.example, http://b.example:81", []string{"https://a.example", "http://b.example:81"}},
	"subprotocols":                 {"chat.v2, chat", []string{"chat.v2", "chat"}},
	"trusted_proxies":              {"10.0.0.0/8, loopback", []string{"10.0.0.0/8", "loopback"}},
	"proxy_header":                 {"x-real-ip", "x-real-ip"},
	"proxy_protocol":               {"true", true},
	"handshake_timeout":            {"1.5", 1500 * time.Millisecond},
	"handshake_bytes_max":          {"32768", 32768},
	"handshake_fields_max":         {"200", 200},
	"auth_timeout":                 {"250ms", 250 * time.Millisecond},
	"offload_workers":              {"33", 33},
	"offload_timeout":              {"12", 12 * time.Second},
	"shutdown_timeout":             {"9", 9 * time.Second},
	"admin_host":                   {"::1", "::1"},
	"admin_port":                   {"0", 0}, // off
	"api_host":                     {"127.0.0.2", "127.0.0.2"},
	"api_port":                     {"9443", 9443},
	"api_keys_file":                {"testdata/keys", "testdata/keys"},
	"auth":                         {"required", "required"},
	"jwt_secret_file":              {"testdata/secret", "testdata/secret"},
	"jwt_keys_file":                {"testdata/public.pem", "testdata/public.pem"},
	"jwt_jwks_url":                 {"http://127.0.0.1:1/keys", "http://127.0.0.1:1/keys"},
	"jwt_algorithms":               {"HS512, HS256", []string{"HS512", "HS256"}},
	"jwt_issuer":                   {"me", "me"},
	"jwt_audience":                 {"chat", "chat"},
	"jwt_claim":                    {"https://chat.example/claims", "https://chat.example/claims"},
	"jwt_leeway":                   {"3", 3 * time.Second},
	"jwt_grace":                    {"1m", time.Minute},
	"jwt_cookie":                   {"sid", "sid"},
	"jwt_query":                    {"true", true},
	"examples":                     {"false", false},
	"log_level":                    {"warn", "warn"},
	"log_format":                   {"json", "json"},
}

// needs are the keys that work only together with another one.
var needs = map[string][]string{"auth": {"jwt_secret_file"}, "jwt_secret_file": {"auth"}, "jwt_algorithms": {"auth", "jwt_secret_file"}, "jwt_keys_file": {"auth"}, "jwt_jwks_url": {"auth", "jwt_audience", "jwt_secret_file"}, "jwt_cookie": {"auth", "origins", "jwt_secret_file"}, "proxy_protocol": {"trusted_proxies"}, "message_burst": {"message_rate"}, "message_strikes": {"message_rate"}, "proxy_header": {"trusted_proxies"}, "bus_url": {"processes"}, "bus_url_file": {"processes"}, "bus_credentials": {"bus_url", "processes"}}

// loaded are the settings of a command with these arguments, and their sources.
func loaded(t *testing.T, args ...string) (*settings, map[string]string) {
	t.Helper()
	var s *settings
	var sources map[string]string
	cmd := &cobra.Command{Use: "serve", SilenceUsage: true, RunE: func(cmd *cobra.Command, _ []string) (err error) {
		s, sources, err = load(cmd)
		return err
	}}
	addFlags(cmd)
	cmd.SetArgs(args)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return s, sources
}

// Every key can be set by flag, by variable and by file, and arrives in the configuration: in its own field,
// and in no other.
func TestEveryKey(t *testing.T) {
	ways := []struct {
		name string
		load func(*testing.T, setting, string) (*settings, map[string]string)
	}{
		{"flag", func(t *testing.T, s setting, text string) (*settings, map[string]string) {
			return loaded(t, "--"+s.flag()+"="+text)
		}},
		{"variable", func(t *testing.T, s setting, text string) (*settings, map[string]string) {
			t.Setenv(s.variable(), text)
			return loaded(t)
		}},
		{"file", func(t *testing.T, s setting, text string) (*settings, map[string]string) {
			return loaded(t, "--config", write(t, s.key+": "+yamlOf(s, text)+"\n"))
		}},
	}
	unsetAPIPort(t)
	places := map[string]string{"flag": "--", "variable": envPrefix, "file": "parley.yaml:1"}
	for _, s := range table {
		row, ok := everyKey[s.key]
		if !ok {
			t.Errorf("%s has no row in everyKey: give it a value that is not its default", s.key)
			continue
		}
		defaults := defaultSettings()
		if same(&defaults, s, row.want) {
			t.Errorf("%s: %v against its default: a value that is the default proves nothing", s.key, row.want)
		}
		for _, way := range ways {
			t.Run(s.key+"/"+way.name, func(t *testing.T) {
				for _, key := range needs[s.key] {
					other, _ := findSetting(key)
					t.Setenv(other.variable(), everyKey[other.key].text)
				}
				got, sources := way.load(t, s, row.text)
				if !same(got, s, row.want) {
					t.Errorf("%s is %s, want %v", s.key, s.text(got), row.want)
				}
				if !strings.Contains(sources[s.key], places[way.name]) {
					t.Errorf("it is said to come from %q", sources[s.key])
				}
				for _, other := range table {
					if other.key != s.key && other.key != "examples" && !(s.key == "bus_url_file" && other.key == "bus_url") && !slices.Contains(needs[s.key], other.key) && (sources[other.key] != "default" || other.text(got) != other.text(&defaults)) {
						t.Errorf("%s became %s (%s)", other.key, other.text(got), sources[other.key])
					}
				}
			})
		}
	}
	if len(everyKey) != len(table) {
		t.Errorf("%d rows for %d keys: a row names no key", len(everyKey), len(table))
	}
}

// The table that flags, variables and files share leaves no field of the engine's configuration out.
func TestTableIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range reflect.VisibleFields(reflect.TypeFor[settings]()) {
		key := f.Tag.Get("key")
		if f.Anonymous || key == "-" || !f.IsExported() {
			continue
		}
		if _, known := findSetting(key); key == "" || !known || seen[key] {
			t.Errorf("%s has the key %q: give it one of its own, or \"-\" and a reason", f.Name, key)
		}
		seen[key] = true
	}
	if len(seen) != len(table) {
		t.Errorf("%d fields with keys, %d settings", len(seen), len(table))
	}
}

func same(in *settings, s setting, want any) bool {
	return reflect.DeepEqual(reflect.ValueOf(in).Elem().FieldByIndex(s.index).Interface(), want)
}

// yamlOf writes lists as YAML does, and quotes texts that YAML would read as another type.
func yamlOf(s setting, text string) string {
	if s.typ == reflect.TypeFor[[]string]() {
		list, _ := parseList(text)
		return `["` + strings.Join(list, `", "`) + `"]`
	}
	if s.typ == reflect.TypeFor[string]() {
		return `"` + text + `"`
	}
	return text
}
