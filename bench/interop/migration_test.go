package interop

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// migrationBlock is the first block of a language in docs/from-the-seed.md, without its indentation.
func migrationBlock(t *testing.T, language string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "from-the-seed.md"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile("(?ms)^   ```" + language + "\n(.*?)^   ```$").FindStringSubmatch(string(text))
	if m == nil {
		t.Fatalf("docs/from-the-seed.md has no block of %s", language)
	}
	return regexp.MustCompile("(?m)^   ").ReplaceAllString(m[1], "")
}

// The settings of the migration guide are those of the seed's own configuration, and check-config takes them.
func TestMigrationSettings(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "parley.yaml"), []byte(migrationBlock(t, "yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.Command("sh", "-c", strings.Replace(migrationBlock(t, "sh"), "parley ", binary+" ", 1))
	command.Dir = dir
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for key, value := range map[string]string{"host": "127.0.0.1", "port": "9190", "processes": "4", "heartbeat_interval": "30", "heartbeat_timeout": "60",
		"reconnection_ttl": "300", "reconnection_max_attempts": "5", "max_connections_per_room": "100", "max_rooms_per_connection": "10"} {
		if !regexp.MustCompile(`(?m)^` + key + `: +` + regexp.QuoteMeta(value) + ` +# parley.yaml:\d+$`).Match(out) {
			t.Errorf("check-config does not show %s: %s of the file:\n%s", key, value, out)
		}
	}
}

// nginx with the lines of the migration guide sends clients with the cookie to the new server, and all others to the former one.
func TestMigrationBesideEachOther(t *testing.T) {
	former, next := serve(t, "--trusted-proxies", "127.0.0.1"), serve(t, "--trusted-proxies", "127.0.0.1")
	choice := strings.Replace(migrationBlock(t, "nginx"), "127.0.0.1:9190", strings.TrimPrefix(next.ws, "ws://"), 1)
	n := startNginx(t, "nginx.conf", former, "upstream websocket {", choice+"upstream websocket {",
		"proxy_pass http://websocket;", "proxy_pass http://$chat_server;")
	for cookie, want := range map[string]*server{"": former, "other=1": former, "parley=1": next, "a=b; parley=1": next} {
		before := want.stats("connections")
		n.dial("127.0.0.2", http.Header{"Cookie": {cookie}})
		eventually(t, "the client with the cookie "+cookie+" is on its server", func() bool { return want.stats("connections") == before+1 })
	}
	// A token of the former server is not known to the next one, and the client goes on as a new one.
	p := n.dial("127.0.0.2", nil)
	moved := n.dial("127.0.0.2", http.Header{"Cookie": {"parley=1"}})
	moved.say(`{"type":"reconnect","token":%q}`, p.token)
	if m := moved.until("error"); m["code"] != "invalid_token" {
		t.Errorf("the next server answers %v", m)
	}
	moved.say(`{"type":"join","room":"room1"}`)
	moved.until("joined")
}
