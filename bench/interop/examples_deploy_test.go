package interop

import (
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"crypto/tls"
	gorilla "github.com/gorilla/websocket"
)

// exampleFile is a file of docs/examples.
func exampleFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "examples", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// site starts a real nginx with the site of docs/examples/nginx, and the upstreams of an example.
func site(t *testing.T, address, upstreams string, changes ...string) *nginx {
	t.Helper()
	program, dir := need(t, "nginx"), t.TempDir()
	selfSigned(t, dir)
	writeFile(t, filepath.Join(dir, "site.conf"), replaced(t, exampleFile(t, "nginx/site.conf"), "listen 443", "listen "+address, "/path/to/", dir+"/"))
	writeFile(t, filepath.Join(dir, "upstreams.conf"), replaced(t, exampleFile(t, upstreams), changes...))
	n := &nginx{t: t, address: address}
	n.run(program, filepath.Join(dir, "nginx.conf"), fmt.Sprintf("user root;\nworker_processes 2;\npid %[1]s/pid;\nevents { worker_connections 1000; }\n"+
		"http {\naccess_log %[1]s/access.log;\ninclude %[1]s/site.conf;\ninclude %[1]s/upstreams.conf;\n}\n", dir))
	return n
}

// Behind a real nginx with TLS, a browser gets the page and the token from the backend, and its WebSocket from Parley at /ws, on two
// processes. Parley sees the addresses of clients. Pages of other sites may not connect.
func TestExampleNginx(t *testing.T) {
	t.Parallel()
	need(t, "node")
	e := begun(t, false)
	address := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	page := "https://" + address + "/"
	e.enter("export PARLEY_ORIGINS=https://" + address)
	e.example("nginx", " 8000 &", fmt.Sprintf(" %d &", e.web))
	e.serving()
	answering(t, fmt.Sprintf("http://127.0.0.1:%d/", e.web))
	n := site(t, address, "nginx/upstreams.conf", "127.0.0.1:9090", fmt.Sprint("127.0.0.1:", e.port), "127.0.0.1:8000", fmt.Sprint("127.0.0.1:", e.web))

	bob := browse(t, page)
	bob.fillsIn("#login input", "bob")
	bob.sees("1 here")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	ann := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	post(t, ann, page+"login", "name", "ann")
	_, granted := post(t, ann, page+"token", "", "")
	if granted["url"] != "/ws" {
		t.Fatalf("%v", granted)
	}
	at := func(from, path, origin string) (*gorilla.Conn, *http.Response, error) {
		d := n.dialer(from)
		d.Subprotocols = []string{"parley.v1", "parley.token." + granted["token"].(string)}
		return d.Dial("wss://"+address+path, http.Header{"Origin": {origin}, "X-Forwarded-For": {"6.6.6.6"}})
	}
	workers := &server{t: t, admin: fmt.Sprintf("http://127.0.0.1:%d/", e.admin)}
	var devices []*person
	eventually(t, "both processes have connections", func() bool {
		conn, _, err := at("127.0.0.7", "/ws", "https://"+address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		p := &person{t: t, c: &gorillaClient{conn}}
		p.say(`{"type":"join","room":"chat:1"}`)
		p.until("joined")
		devices = append(devices, p)
		return workers.busyWorkers() == 2
	})
	bob.fillsIn("#say input", "hello")
	for _, p := range devices {
		p.hears("bob", "hello")
	}
	bob.sees("bob: hello")
	if shown := e.enter("bin/parley conns"); !strings.Contains(shown, "127.0.0.7") || strings.Contains(shown, "6.6.6.6") {
		t.Errorf("Parley sees these clients:\n%s", shown)
	}
	for path, origin := range map[string]string{"/ws": "https://evil.example", "/": "https://" + address} {
		if conn, _, err := at("127.0.0.7", path, origin); err == nil {
			conn.Close()
			t.Errorf("a WebSocket at %s from %s is accepted", path, origin)
		}
	}
}

// systemd understands the units with the additions, and Parley the settings there, with the files where systemd puts them.
func TestExampleSystemd(t *testing.T) {
	analyze := need(t, "systemd-analyze")
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "parley.service.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	override := exampleFile(t, "systemd/override.conf")
	writeFile(t, filepath.Join(dir, "parley.service"), deployed(t, "parley.service", "/usr/local/bin/parley", binary))
	writeFile(t, filepath.Join(dir, "parley.service.d", "override.conf"), override)
	writeFile(t, filepath.Join(dir, "chat.service"), replaced(t, exampleFile(t, "systemd/chat.service"), "/usr/bin/node", binary))
	for _, unit := range []string{"parley.service", "chat.service"} {
		verify := exec.Command(analyze, "verify", filepath.Join(dir, unit))
		verify.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":")
		if out, err := verify.CombinedOutput(); err != nil || strings.Contains(string(out), dir) || strings.Contains(string(out), unit) {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}

	e := begun(t, false)
	for _, m := range regexp.MustCompile(`(?m)^LoadCredential=(\w+):/etc/parley/(\S+)$`).FindAllStringSubmatch(override, -1) {
		if err := os.Symlink(filepath.Join(e.dir, "secrets", m[2]), filepath.Join(dir, m[1])); err != nil {
			t.Fatal(err)
		}
	}
	settings := regexp.MustCompile(`(?m)^Environment=(\w+)=(\S+)$`).FindAllStringSubmatch(override, -1)
	for _, m := range settings {
		e.enter(fmt.Sprintf("export %s=%s", m[1], strings.NewReplacer("%d", dir, "%S", dir).Replace(m[2])))
	}
	if shown := e.enter("bin/parley check-config"); len(settings) < 4 || strings.Count(shown, dir) < 3 {
		t.Errorf("%d settings; Parley makes of them\n%s", len(settings), shown)
	}
}

// nginx accepts the site with the upstreams of the containers, and Docker Compose, where it is installed, accepts the file. What the file
// names is checked in docs.
func TestExampleCompose(t *testing.T) {
	nobody := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	site(t, fmt.Sprintf("127.0.0.1:%d", freePort(t)), "compose/upstreams.conf", "parley:9090", nobody, "backend:8000", nobody)
	if exec.Command("docker", "compose", "version").Run() != nil {
		t.Skip("Docker Compose is missing: the file itself is checked by TestExampleOfContainers alone")
	}
	check := exec.Command("docker", "compose", "-f", filepath.Join("..", "..", "docs", "examples", "compose", "compose.yaml"), "config", "--quiet")
	check.Env = append(os.Environ(), "PARLEY_API_KEY=pk_x")
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
