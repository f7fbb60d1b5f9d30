package admin_test

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

var (
	inlineScript = regexp.MustCompile(`(?i)<script(>|[^>]*>[^<])|<style|\son[a-z]+\s*=|\sstyle\s*=|javascript:`)
	reference    = regexp.MustCompile(`(?i)(?:src|href|action)\s*=\s*"([^"]*)"|from '\./([^']*)'`)
	elsewhere    = regexp.MustCompile(`(?i)["'(]\s*(https?:)?//\w`)
)

// The pages and all that they load have their content types. They hold no script and no style themselves, load no file
// from other hosts, and the policy for browsers forbids both.
func TestPage(t *testing.T) {
	for _, planted := range []string{`<p onclick = "x()">`, `<script>x()</script>`, `<style>`, `<p style="x">`} {
		if !inlineScript.MatchString(planted) {
			t.Errorf("the search for inline script does not find %q", planted)
		}
	}
	w := start(t, nil)
	seen := map[string]bool{}
	todo := []string{"."}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if seen[name] || name == "data:," { // no icon
			continue
		}
		seen[name] = true
		file := strings.TrimPrefix(name, ".")
		if file == "" {
			file = "index.html" // only for its kind
			name = ""
		}
		resp, text := w.fetch("/" + name)
		kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if want := map[string]string{".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[path.Ext(file)]; kind != want || text == "" {
			t.Errorf("%s is %q, %d bytes", file, kind, len(text))
		}
		checkPolicy(t, file, resp.Header)
		if found := inlineScript.FindString(text); found != "" && path.Ext(file) == ".html" {
			t.Errorf("%s has inline script or style: %q", file, found)
		}
		if strings.Contains(text, "innerHTML") {
			t.Errorf("%s writes HTML out of text", file)
		}
		if found := elsewhere.FindString(text); found != "" {
			t.Errorf("%s names another host: %q", file, found)
		}
		if path.Ext(file) == ".html" || path.Ext(file) == ".js" {
			for _, m := range reference.FindAllStringSubmatch(text, -1) {
				todo = append(todo, m[1]+m[2])
			}
		}
	}
	for _, name := range []string{"style.css", "chat.js", "parley.js", "view.js", "wire.js", "words.js", "bare.html", "bare.js"} {
		if !seen[name] {
			t.Errorf("the pages do not lead to %s", name)
		}
	}
	resp, body := w.fetch("/server.json")
	want := fmt.Sprintf(`{"port":%d}`, w.srv.Addr().(*net.TCPAddr).Port)
	if got := strings.Join(strings.Fields(body), ""); got != want || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("server.json: %s %v", got, resp.Header)
	}
}

func checkPolicy(t *testing.T, name string, h http.Header) {
	t.Helper()
	policy := h.Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self' ws: wss:", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("%s: the policy %q is without %s", name, policy, part)
		}
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: headers %v", name, h)
	}
}

// The bare page's client is that of docs/wire.md, in another room and with one line more, which lets the page publish.
func TestBarePage(t *testing.T) {
	_, script := start(t, nil).fetch("/bare.js")
	document, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	_, client, _ := strings.Cut(string(document), "```js\nlet token, last")
	client, _, found := strings.Cut("let token, last"+client, "```")
	if !found {
		t.Fatal("docs/wire.md has no client")
	}
	client = strings.NewReplacer(`"chat"`, `"lobby"`, "last.chat", "last.lobby").Replace(client)
	_, own, _ := strings.Cut(script, "// ----\n")
	own, _, _ = strings.Cut(own, "// ----\n")
	var lines []string
	for line := range strings.Lines(own) {
		if !strings.HasPrefix(line, "  publish = ") {
			lines = append(lines, line)
		}
	}
	if got := strings.Join(lines, ""); got != client {
		t.Errorf("bare.js has\n%s\nand docs/wire.md\n%s", got, client)
	}
}
