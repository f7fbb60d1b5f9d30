package interop

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	walked = regexp.MustCompile("(?sm)^```(sh|js|text|go|json)\n(.*?)^```$")
	saveAs = regexp.MustCompile("Save\\s+this\\s+as\\s+`([\\w.]+)`:\\s*$")
	again  = regexp.MustCompile(`^WebSocket connection|is cut off$`) // the server has ended, and the clients try again
	named  = regexp.MustCompile(`TOKEN OF (\w+)`)
)

// The files and commands of docs/walks/go.md, typed into a terminal and into the console of a browser, make a program that shows
// what the page says.
func TestWalkGo(t *testing.T) {
	need(t, "curl")
	need(t, "chromium")
	t.Setenv("GOFLAGS", "-trimpath") // what the other tests have compiled is used again
	t.Setenv("CGO_ENABLED", "0")
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	e := openTerminal(t)
	if err := os.Symlink(root, filepath.Join(e.dir, "parley")); err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, e: e, ports: map[string]int{"9090": e.port, "9091": e.admin}}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "walks", "go.md"))
	if err != nil {
		t.Fatal(err)
	}
	outputs, saved := 0, 0
	for _, at := range walked.FindAllSubmatchIndex(raw, -1) {
		kind, text, before := string(raw[at[2]:at[3]]), string(raw[at[4]:at[5]]), raw[:at[0]]
		file := saveAs.FindSubmatch(before)
		switch lines := settledLines(text); {
		case file != nil:
			writeFile(t, filepath.Join(e.dir, "chat", string(file[1])), r.here(text))
			saved++
		case kind == "sh":
			r.enter(text)
		case kind == "js":
			r.paste(named.ReplaceAllStringFunc(text, func(name string) string {
				return r.token(strings.ToLower(named.FindStringSubmatch(name)[1]))
			}))
		case kind != "text":
			t.Fatalf("the page shows code that it does not save:\n%s", text)
		case ofConsole.MatchString(lines[0]):
			r.sees(lines)
			outputs++
		default:
			r.reads(lines)
			outputs++
		}
	}
	for _, line := range r.consoleLines() {
		if !again.MatchString(line) {
			t.Errorf("the console shows more than the page: %q", line)
		}
	}
	if outputs < 13 || saved != 4 {
		t.Errorf("the page shows %d outputs and %d files: the search is wrong", outputs, saved)
	}
}

// token is the last token of a user that the terminal has shown.
func (r *reader) token(user string) string {
	r.t.Helper()
	found := regexp.MustCompile(`(?m)^`+user+`\.[0-9a-f]{64}$`).FindAllString(r.e.out.String(), -1)
	if len(found) == 0 {
		r.t.Fatalf("the terminal shows no token of %s", user)
	}
	return found[len(found)-1]
}
