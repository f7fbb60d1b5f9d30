package engine

import (
	"errors"
	"strings"
	"testing"
)

// New, Validate and Reload judge texts alike: what cannot be meant is refused, with its key.
func TestConfigTexts(t *testing.T) {
	running, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key, says string
		cfg       Config
	}{
		{"origins", "port", Config{Origins: []string{"https://a:abc"}}},
		{"origins", "user", Config{Origins: []string{"https://a.example", "https://u@a"}}},
		{"origins", "no origin", Config{Origins: []string{"https://a?x"}}},
		{"origins", "no origin", Config{Origins: []string{"https://a b"}}},
		{"origins", "no origin", Config{Origins: []string{""}}},
		{"subprotocols", "no name", Config{Subprotocols: []string{"a,b"}}},
		{"data_dir", "quotes", Config{DataDir: `"/data"`}},
		{"data_dir", "quotes", Config{DataDir: `'/data`}},
		{"data_dir", "control character", Config{DataDir: "/data\r"}},
		{"data_dir", "control character", Config{DataDir: "/da\x00ta"}},
		{"data_dir", "space", Config{DataDir: "/data "}},
		{"data_dir", "~", Config{DataDir: "~/data"}},
		{"data_dir", "$", Config{DataDir: "${STATE}/parley"}},
		{"host", "key of its own", Config{Host: "127.0.0.1:9090"}},
		{"host", "key of its own", Config{Host: "[::1]:9090"}},
		{"host", "key of its own", Config{Host: "localhost:9090"}},
		{"host", "0.0.0.0", Config{Host: "*"}},
		{"host", "without scheme", Config{Host: "ws://localhost"}},
		{"host", "write an address", Config{Host: "a b"}},
		{"host", "write an address", Config{Host: "[::1"}},
		{"host", "quotes", Config{Host: `"::1"`}},
		{"trusted_proxies", "space", Config{TrustedProxies: []string{"10.0.0.1 "}}},
	} {
		var wrong *ConfigError
		_, byNew := New(c.cfg)
		_, byReload := running.Reload(c.cfg)
		full, _ := c.cfg.withDefaults()
		for name, err := range map[string]error{"New": byNew, "Reload": byReload, "Validate": full.Validate()} {
			if !errors.As(err, &wrong) || wrong.Key != c.key || !strings.Contains(wrong.Hint, c.says) {
				t.Errorf("%s of %+v says %v, not %q of %s", name, c.cfg, err, c.says, c.key)
			}
		}
	}
	for _, host := range []string{"::1", "[::1]", "[fe80::1%eth0]", "localhost", "my_host.example", "bücher.example", "0.0.0.0"} {
		s, err := New(Config{Host: host, DataDir: "var/lib my/parley"})
		if err != nil || strings.ContainsAny(s.Config().Host, "[]") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

// A reload does not lift a list of origins without being told to.
func TestReloadKeepsOrigins(t *testing.T) {
	s, err := New(Config{Origins: []string{"https://a.example"}})
	if err != nil {
		t.Fatal(err)
	}
	var wrong *ConfigError
	for _, list := range [][]string{nil, {}} {
		if _, err := s.Reload(Config{Origins: list}); !errors.As(err, &wrong) || wrong.Key != "origins" || s.tuned.Load().origins.Allow("https://b.example") {
			t.Fatal(err)
		}
	}
	for _, list := range [][]string{{"https://b.example"}, {"*"}, nil} {
		if _, err := s.Reload(Config{Origins: list}); err != nil || !s.tuned.Load().origins.Allow("https://b.example") {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// A URL of the bus that cannot work is refused without a letter of its password, and with what to do about it.
func TestBusURLs(t *testing.T) {
	refused := func(url, says string) {
		t.Helper()
		var wrong *ConfigError
		_, err := New(Config{Processes: 2, BusURL: url})
		if !errors.As(err, &wrong) || wrong.Key != "bus_url" || !strings.Contains(wrong.Hint, says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, before := range []string{"/", "?", "#", "12/", "34?", "5#", ",", "6,"} {
		refused("nats://u:"+before+"secret@h:4222", "%2F")
	}
	refused("nats://u:se%cret@h", "%25")
	refused("nats://u:x,secret:y@h", "%2C")
	refused("nats://u:secret@h/x", "percent-encoded")
	refused("nats://u:secret@h,", "percent-encoded")
	refused("http://u:secret@h", "does not begin with nats://")
	refused("secret@h:4222", "nats://host:4222")
	refused("nats://u:secret@:4222", "no host")
	refused(`"nats://u:secret@h"`, "quotes")
	refused("nats://u:secret@h\r", "control character")
	for _, url := range []string{"nats://u:s%2Fecret@h:4222", "tls://h", "nats://u:p@h1:1, nats://u:p@h2:2/", "nats://token@h", "nats://[::1]:4222", "nats://u:a:b!$&'()*+;=@h"} {
		if _, err := New(Config{Processes: 2, BusURL: url}); err != nil {
			t.Errorf("%s: %v", url, err)
		}
	}
	for _, c := range []Config{{Processes: 2, BusURL: "nats://u:p@h", BusCredentials: "/x"}, {BusCredentials: "/x"}, {Processes: 2, BusURL: "nats://h", BusCredentials: "~/x"}} {
		if _, err := New(c); err == nil {
			t.Errorf("%+v passed", c)
		}
	}
}
