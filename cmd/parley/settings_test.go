package main

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/configuration.md and docs/commandline.md")

// docs/configuration.md agrees with the table.
func TestDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	if *update {
		if err := os.WriteFile(path, []byte(settingsPage()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != settingsPage() {
		t.Errorf("%s is not what the settings are (%v); run go test ./cmd/parley -run Docs -update", path, err)
	}
	for _, s := range table {
		if s.help == "" {
			t.Errorf("setting %s has no line of help", s.key)
		}
	}
}

// parley runs the command as the process would.
func parley(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, wrong bytes.Buffer
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // serve and echo take their leave at once
	code = run(ctx, args, &out, &wrong)
	return code, out.String(), wrong.String()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "parley.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The answer to a mistake names the fault, its place, and the right form.
func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name, file string
		env        string
		args       []string
		want       []string
	}{
		{"unknown key", "port: 1\nheartbeat_intervall: 5\n", "", nil, []string{`parley.yaml:2: there is no setting "heartbeat_intervall"; did you mean "heartbeat_interval"?`}},
		{"two mistakes at once", "port: abc\nloops: x\n", "", nil, []string{"parley.yaml:1: port", "parley.yaml:2: loops"}},
		{"twice", "port: 1\nport: 2\n", "", nil, []string{"port"}},
		{"nested", "port: {a: 1}\n", "", nil, []string{"parley.yaml:1: port: settings are flat"}},
		{"no mapping", "- 1\n", "", nil, []string{"parley.yaml:1"}},
		{"no YAML", "a: [\n", "", nil, []string{"parley.yaml"}},
		{"variable", "", "PARLEY_HEARTBEAT_INTERVALL", nil, []string{"PARLEY_HEARTBEAT_INTERVALL names no setting", `"heartbeat_interval"`}},
		{"flag", "", "", []string{"--max-room-per-connection", "3"}, []string{"--max-room-per-connection is no flag", "max-rooms-per-connection"}},
		{"value of a flag", "", "", []string{"--port", "70000"}, []string{"--port: port: 70000 is no port"}},
		{"zero", "", "", []string{"--message-bytes-max", "0"}, []string{"--message-bytes-max", "0 means nothing here"}},
		{"combination", "heartbeat_interval: 50\nheartbeat_timeout: 20\n", "", nil, []string{"parley.yaml:2: heartbeat_timeout", "must exceed heartbeat_interval"}},
		{"processes", "processes: 1000\n", "", nil, []string{"parley.yaml:1: processes: 1000 is out of range; give 1 to 256"}},
		{"more than workers can share", "processes: 2\nmessage_bytes_max: 8323073\n", "", nil, []string{"parley.yaml:2: message_bytes_max: 8323073 is more than one worker can send to another; give at most 8323072, or processes: 1"}},
		{"no origin", "port: 1\norigins: ['', ' ']\n", "", nil, []string{"parley.yaml:2: origins: it is empty", `write "*"`}},
		{"no origin by a flag", "origins: [https://a.example]\n", "", []string{"--origins="}, []string{"--origins: origins: it is empty"}},
		{"origins that are missing", "origins:\n", "", nil, []string{"parley.yaml:1: origins: the value is missing"}},
		{"origin", "origins: [example.com]\n", "", nil, []string{"parley.yaml:1: origins", "scheme://host"}},
		{"origin with a port that is none", "origins: ['https://a:abc']\n", "", nil, []string{"parley.yaml:1: origins", "port"}},
		{"origin with a user", "", "", []string{"--origins", "https://u@a"}, []string{"--origins: origins", "user"}},
		{"origin of the socket", "origins: [wss://a.example]\n", "", nil, []string{"parley.yaml:1: origins", "http or https"}},
		{"subprotocol", "subprotocols: [a b]\n", "", nil, []string{"parley.yaml:1: subprotocols", "no name of a subprotocol"}},
		{"one port for both", "port: 9091\nhost: 0.0.0.0\nadmin_port: 9091\n", "", nil, []string{"parley.yaml:3: admin_port: 9091 is the server's own port"}},
		{"no admin port", "admin_port: 70000\n", "", nil, []string{"parley.yaml:1: admin_port: 70000 is no port"}},
		{"host with a port", "host: 0.0.0.0:9090\n", "", nil, []string{"parley.yaml:1: host", "port has a key of its own"}},
		{"admin host that is none", "admin_host: http://localhost\n", "", nil, []string{"parley.yaml:1: admin_host", "without scheme"}},
		{"proxies", "trusted_proxies: [nginx]\n", "", nil, []string{`parley.yaml:1: trusted_proxies: "nginx" is neither an address nor a network`}},
		{"proxies of nobody", "proxy_protocol: true\n", "", nil, []string{"parley.yaml:1: proxy_protocol: every connection would be refused", "trusted_proxies"}},
		{"a number that wraps", "port: 1\nmax_connections_per_room: 4294967297\n", "", nil, []string{"parley.yaml:2: max_connections_per_room: 4294967297 is too large; give at most 2147483647"}},
		{"a number of no machine", "max_rooms_per_connection: 99999999999999999999\n", "", nil, []string{"parley.yaml:1: max_rooms_per_connection", "give at most 2147483647"}},
		{"a time beyond all", "reconnection_ttl: 2000000000\n", "", nil, []string{"parley.yaml:1: reconnection_ttl", "give at most 1000000000 seconds"}},
		{"a longer time", "auth_timeout: 1e300\n", "", nil, []string{"parley.yaml:1: auth_timeout", "give at most 1000000000 seconds"}},
		{"choice", "log_level: wran\n", "", nil, []string{`did you mean "warn"?`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"check-config"}, c.args...)
			if c.file != "" {
				args = append(args, "--config", write(t, c.file))
			}
			if c.env != "" {
				t.Setenv(c.env, "1")
			}
			code, _, stderr := parley(t, args...)
			if code != exitUsage {
				t.Errorf("exit code %d", code)
			}
			for _, want := range c.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q does not say %q", stderr, want)
				}
			}
		})
	}
	if code, _, stderr := parley(t, "sevre"); code != exitUsage || !strings.Contains(stderr, `did you mean "serve"?`) {
		t.Error(code, stderr)
	}
}

// Flags win over variables, variables over the file; and the seed's file works as it is.
func TestPrecedence(t *testing.T) {
	path := write(t, "host: 0.0.0.0\nport: 9090\nprocesses: 4\nheartbeat_interval: 30\nheartbeat_timeout: 60\nreconnection_ttl: 300\n"+
		"reconnection_max_attempts: 5\nmax_connections_per_room: 100\nmax_rooms_per_connection: 10\norigins: [https://a.example, https://b.example]\n")
	t.Setenv("PARLEY_PORT", "1111")
	t.Setenv("PARLEY_RECONNECTION_TTL", "2m")
	code, out, stderr := parley(t, "check-config", path, "--port", "2222", "--max-rooms-per-connection=0", "--compression")
	if code != exitOK {
		t.Fatal(code, stderr)
	}
	for _, want := range []string{"2222# --port", "120# PARLEY_RECONNECTION_TTL", "host:0.0.0.0#", "max_rooms_per_connection:0# --max", "compression:true#", "[https://a.example,https://b.example]"} {
		if flat := strings.ReplaceAll(strings.ReplaceAll(out, " ", ""), "#", "# "); !strings.Contains(flat, want) {
			t.Errorf("%s\ndoes not say %q", flat, want)
		}
	}
}

// An empty variable does not lift the list of the file.
func TestEmptyOrigins(t *testing.T) {
	t.Setenv("PARLEY_ORIGINS", "")
	if code, _, stderr := parley(t, "check-config", write(t, "origins: [https://a.example]\n")); code != exitUsage || !strings.Contains(stderr, "PARLEY_ORIGINS: origins: it is empty") {
		t.Error(code, stderr)
	}
	t.Setenv("PARLEY_ORIGINS", "[]")
	if code, _, stderr := parley(t, "check-config", write(t, "origins: [https://a.example]\n")); code != exitUsage || !strings.Contains(stderr, "PARLEY_ORIGINS: origins: it is empty, and would lift the list of ") {
		t.Error(code, stderr)
	}
}

// A server still starts, with a warning, with the file of a version whose default was an empty list of origins. An empty
// text is a mistake.
func TestEmptyListOfOrigins(t *testing.T) {
	for text, want := range map[string]int{"origins: []\n": exitOK, "{\"origins\": [ ]}": exitOK, "origins:\n": exitUsage, "origins: ''\n": exitUsage, "origins: ['']\n": exitUsage, "origins: [' ']\n": exitUsage} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != want || want == exitOK && !strings.Contains(stderr, "parley.yaml:1: origins is an empty list") {
			t.Errorf("%q: %d %s", text, code, stderr)
		}
	}
}

// A file that holds more than one mapping of plain values is a mistake.
func TestShapeOfFile(t *testing.T) {
	for text, want := range map[string]string{
		"data_dir: [/a, /b]\n": "one value, not a list", "port: [9090]\n": "one value, not a list", "port: &p 1\nbus_url: &l [x]\nhost: *l\n": "one value, not a list",
		"port: 9191\n---\nport: 9192\n": "parley.yaml:3: a second document", "---\n---\nport: 1\n": "a second document", "port: 1\n...\nlog_level: debug\n": "parley.yaml: yaml", "port: 1\n---\n[\n": "parley.yaml: yaml",
		"x: 1\n": "no setting \"x\"\n", "PORT: 1\n": "did you mean \"port\"?", "log_level: INFO\n": "did you mean \"info\"?", "HEARTBEAT-INTERVAL: 1\n": "did you mean \"heartbeat_interval\"?",
	} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %s", text, code, stderr)
		}
	}
	for _, text := range []string{"---\nport: 1\n---\n", "port: 1\n...\n", "port: &p 9393\n"} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != exitOK {
			t.Errorf("%q: %d %s", text, code, stderr)
		}
	}
}

// A file that holds no setting gives a warning at the start, and is a mistake at a reload.
func TestEmptyFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n", "{}\n"} {
		path := write(t, text)
		code, _, stderr := parley(t, "check-config", path)
		if code != exitOK || !strings.Contains(stderr, "parley.yaml holds no setting") {
			t.Errorf("%q: %d %s", text, code, stderr)
		}
		cmd := newServe()
		if err := cmd.Flags().Set("config", path); err != nil {
			t.Fatal(err)
		}
		if _, err := reread(cmd, nil); err == nil || !strings.Contains(err.Error(), "holds no setting") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// serve and echo print one line when they are ready, and end with 0.
func TestServeAndEcho(t *testing.T) {
	for _, args := range [][]string{{"serve", "--port", "0", "--admin-port", "0"}, {"echo", "--port", "0", "--compression"}, {"version"}} {
		code, out, stderr := parley(t, args...)
		if code != exitOK || strings.Count(out, "\n") != 1 || stderr != "" {
			t.Errorf("%v: %d %q %q", args, code, out, stderr)
		}
	}
}
