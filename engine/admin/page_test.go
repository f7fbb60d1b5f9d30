package admin_test

import (
	"fmt"
	"mime"
	"net"
	"net/http"
	"os"
	"path"
	"regexp"
	"slices"
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

var (
	entryOfWords = regexp.MustCompile(`(?m)^  (\w+): \[\s*'((?:[^'\\]|\\.)*)',\s*'((?:[^'\\]|\\.)*)',?\s*\],`)
	keyOfWords   = regexp.MustCompile(`(?m)^  (\w+): \[`)
	hole         = regexp.MustCompile(`\{\d\}`)
	textOfPage   = regexp.MustCompile(`>\s*([^<>\s][^<>]*)<`)
)

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

// All texts of the pages stand in one table, in both languages, with the same values in them. No text is unused, none is missing, and
// the pages have no text of their own but the name.
func TestPageWords(t *testing.T) {
	w := start(t, nil)
	_, words := w.fetch("/words.js")
	var pages strings.Builder
	for _, name := range []string{"", "bare.html", "chat.js", "view.js", "wire.js", "bare.js"} {
		_, text := w.fetch("/" + name)
		pages.WriteString(text)
		if name != "" && !strings.HasSuffix(name, ".html") {
			continue
		}
		for _, m := range textOfPage.FindAllStringSubmatch(text, -1) {
			if m[1] != "Parley" {
				t.Errorf("/%s has the text %q: put it into words.js, and its key into data-say", name, m[1])
			}
		}
	}
	codes, err := os.ReadFile("../../clients/js/src/words.ts")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(words, "const languages")
	known := map[string]bool{}
	for _, m := range entryOfWords.FindAllStringSubmatch(words, -1) {
		key, english, chinese := m[1], m[2], m[3]
		known[key] = true
		if values := hole.FindAllString(english, -1); !slices.Equal(sorted(values), sorted(hole.FindAllString(chinese, -1))) {
			t.Errorf("%s: %q and %q do not have the same values", key, english, chinese)
		}
		if !strings.HasPrefix(key, "other") && regexp.MustCompile(`\p{Han}`).MatchString(english) {
			t.Errorf("%s: the English text is %q", key, english)
		}
		if !strings.HasPrefix(key, "other") && !regexp.MustCompile(`\p{Han}`).MatchString(chinese) {
			t.Errorf("%s: the Chinese text is %q", key, chinese)
		}
		name, code := strings.CutPrefix(key, "e_")
		switch {
		case code && !strings.Contains(string(codes), "\n  "+name+": "):
			t.Errorf("%s: no error has the code %s", key, name)
		case !code && !strings.HasPrefix(key, "c_") && !regexp.MustCompile(`['"](`+key+`|`+strings.TrimSuffix(strings.TrimSuffix(key, "1"), "Short")+`)['"]`).MatchString(pages.String()+rest):
			t.Errorf("no page says %s", key)
		}
	}
	if all := len(keyOfWords.FindAllString(words, -1)); all != len(known) || all < 80 {
		t.Errorf("%d of %d entries of words.js have the form KEY: ['English', '中文']", len(known), all)
	}
	for _, m := range regexp.MustCompile(`(?:say|count)\('(\w+)'|data-say(?:-[a-z-]+)?="(\w+)"`).FindAllStringSubmatch(pages.String(), -1) {
		if key := m[1] + m[2]; !known[key] {
			t.Errorf("a page says %s, and words.js does not have it", key)
		}
	}
}
