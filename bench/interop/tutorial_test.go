package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// fence is a piece of code in a document: commands (sh), lines for the console of a browser (js), or what they show (text).
type fence struct{ kind, text string }

var anyFence = regexp.MustCompile("(?sm)^```(sh|js|text)\n(.*?)^```$")

func fences(t *testing.T, path string) (list []fence) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range anyFence.FindAllStringSubmatch(string(raw), -1) {
		list = append(list, fence{m[1], m[2]})
	}
	return list
}

// varying are the parts of an output that differ from run to run.
var varying = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\b[0-9a-f]{24}\b`), "ID"},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SIGNATURE"},
	{regexp.MustCompile(`"(timestamp|expires_in|retry_after)":\d+`), `"$1":N`},
	{regexp.MustCompile(`"(token|epoch)":"[^"]+"`), `"$1":TEXT`},
	{regexp.MustCompile(`time=\S+`), "time=T"},
	{regexp.MustCompile(`with the key in \S+`), "with the key in FILE"},
	{regexp.MustCompile(`\bup \S+, (\d+) of \d+`), "up T, $1 of N"},
	{regexp.MustCompile(`\d+ event loops?`), "N event loops"},
}

func settled(line string) string {
	for _, v := range varying {
		line = v.what.ReplaceAllString(line, v.by)
	}
	return strings.TrimRight(line, " ")
}

func settledLines(text string) (list []string) {
	for line := range strings.Lines(text) {
		list = append(list, settled(strings.TrimRight(line, "\r\n")))
	}
	return list
}

// reader types a document along: its commands into a terminal, its JavaScript into the console of a browser.
//
// Owner: the test; shown is filled by the browser's events (mutex: mu).
type reader struct {
	t       *testing.T
	e       *terminal
	ports   map[string]int // of the document
	console context.Context
	mu      sync.Mutex
	shown   []string // by the console, without what the document has shown
	out     int      // length of the terminal's output before the last commands
}

var port = regexp.MustCompile(`\b(8000|9090|9091|9092|9190)\b`)

// here is a text with the ports of this test.
func (r *reader) here(text string) string {
	return port.ReplaceAllStringFunc(text, func(p string) string { return fmt.Sprint(r.ports[p]) })
}

// there is a text with the ports of the document.
func (r *reader) there(text string) string {
	for p, own := range r.ports {
		text = regexp.MustCompile(fmt.Sprintf(`\b%d\b`, own)).ReplaceAllString(text, p)
	}
	return text
}

func (r *reader) enter(commands string) {
	r.t.Helper()
	r.out = len(r.e.out.String())
	r.e.enter(r.here(commands))
	if strings.Contains(commands, "bin/parley serve") && strings.Contains(commands, " & ") {
		eventually(r.t, "the server is ready", func() bool { return strings.Contains(r.said(), "parley: ready on ") })
	}
}

func (r *reader) said() string { return r.there(r.e.out.String()[r.out:]) }

// paste runs a piece of JavaScript as the console does, with the last token that the terminal has shown.
func (r *reader) paste(script string) {
	r.t.Helper()
	if r.console == nil {
		r.openConsole()
	}
	if strings.Contains(script, `"TOKEN"`) {
		tokens := regexp.MustCompile(`(?m)^eyJ\S+$`).FindAllString(r.e.out.String(), -1)
		if len(tokens) == 0 {
			r.t.Fatal("the terminal shows no token")
		}
		script = strings.ReplaceAll(script, "TOKEN", tokens[len(tokens)-1])
	}
	err := chromedp.Run(r.console, chromedp.ActionFunc(func(ctx context.Context) error {
		_, thrown, err := runtime.Evaluate(r.here(script)).WithReplMode(true).Do(ctx)
		if err == nil && thrown != nil {
			err = errors.New(thrown.Error())
		}
		return err
	}))
	if err != nil {
		r.t.Fatalf("%s\n%v", script, err)
	}
}

func (r *reader) openConsole() {
	r.t.Helper()
	r.console = chromium(r.t)
	chromedp.ListenTarget(r.console, func(event any) {
		line := ""
		switch event := event.(type) {
		case *runtime.EventConsoleAPICalled:
			var words []string
			for _, a := range event.Args {
				var value any
				json.Unmarshal(a.Value, &value)
				if n, ok := value.(float64); ok {
					value = int(n)
				}
				words = append(words, fmt.Sprint(value))
			}
			line = strings.Join(words, " ")
		case *log.EventEntryAdded:
			if line = event.Entry.Text; strings.HasPrefix(line, "Failed to load resource") {
				return // a browser asks each site for an icon
			}
		default:
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.shown = append(r.shown, line)
	})
	if err := chromedp.Run(r.console, chromedp.Navigate(r.here("http://127.0.0.1:9091/healthz"))); err != nil {
		r.t.Fatal(err)
	}
}

// consoleLines are what the console has shown beyond the document.
func (r *reader) consoleLines() (list []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, line := range r.shown {
		list = append(list, settled(r.there(line)))
	}
	return list
}

// forget takes the messages of a type out of what the console has shown.
func (r *reader) forget(typ string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown = slices.DeleteFunc(r.shown, func(line string) bool { return strings.Contains(line, `"type":"`+typ+`"`) })
}

// sees compares the console with the document, each client for itself: two clients are served beside each other.
func (r *reader) sees(want []string) {
	r.t.Helper()
	leaving := strings.Contains(strings.Join(want, "\n"), "is closed: 1001")
	eventually(r.t, "the console shows\n"+strings.Join(want, "\n"), func() bool {
		if leaving { // the page says that one of them may read that the other has left
			r.forget("member_left")
		}
		return len(r.consoleLines()) >= len(want)
	})
	got := r.consoleLines()[:len(want)]
	first := func(a, b string) int { return strings.Compare(strings.Fields(a)[0], strings.Fields(b)[0]) }
	slices.SortStableFunc(got, first)
	want = slices.Clone(want)
	slices.SortStableFunc(want, first)
	if !slices.Equal(got, want) {
		r.t.Fatalf("the console shows\n%s\nand the document\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown = r.shown[len(want):]
}

// reads wants the terminal to show the lines of the document, in order.
func (r *reader) reads(want []string) {
	r.t.Helper()
	eventually(r.t, "the terminal shows\n"+strings.Join(want, "\n"), func() bool {
		left := want
		for _, line := range settledLines(r.said()) {
			if len(left) > 0 && line == left[0] {
				left = left[1:]
			}
		}
		return len(left) == 0
	})
}

var ofConsole = regexp.MustCompile(`^(ann|bob|mal|WebSocket) `)

// The commands of docs/start.md, typed into a terminal and into the console of a browser, show what the page says, mistakes included.
func TestTutorial(t *testing.T) {
	t.Parallel()
	need(t, "curl")
	need(t, "chromium")
	e := openTerminal(t)
	r := &reader{t: t, e: e, ports: map[string]int{"8000": e.web, "9090": e.port, "9091": e.admin, "9092": e.api, "9190": freePort(t)}}
	n := 0
	for _, f := range fences(t, "docs/start.md") {
		switch lines := settledLines(f.text); {
		case f.kind == "sh":
			r.enter(f.text)
		case f.kind == "js":
			r.paste(f.text)
		case ofConsole.MatchString(lines[0]):
			r.sees(lines)
			n++
		default:
			r.reads(lines)
			n++
		}
	}
	if left := r.consoleLines(); len(left) > 0 {
		t.Errorf("the console shows more than the page: %q", left)
	}
	if n < 30 {
		t.Errorf("the page shows %d outputs: the search is wrong", n)
	}
}

// The commands of docs/troubleshooting.md show what the page says, for a server that admits the page's origin.
func TestTroubleshootingCommands(t *testing.T) {
	need(t, "curl")
	e := openTerminal(t)
	r := &reader{t: t, e: e, ports: map[string]int{"9090": e.port, "9091": e.admin}}
	r.enter("bin/parley serve --origins https://www.example.com & true")
	var list []string
	for _, f := range fences(t, "docs/troubleshooting.md") {
		list = append(list, f.text)
	}
	for i, want := range [][]string{{"http://127.0.0.1:9091: ok", "parley_handshakes_refused_total 0"}, {"HTTP/1.1 101 Switching Protocols"}} {
		r.enter(list[i])
		r.reads(want)
	}
	r.enter(strings.Replace(list[1], "www.example.com", "other.example.com", 1))
	r.reads([]string{"HTTP/1.1 403 Forbidden"})
	if len(list) != 2 {
		t.Errorf("the page has %d pieces of code: run them here", len(list))
	}
}

// Both languages of the tutorial have the same commands and show the same outputs.
func TestTutorialLanguages(t *testing.T) {
	english, chinese := fences(t, "docs/start.md"), fences(t, "docs/start.zh.md")
	if len(english) < 60 || !slices.Equal(english, chinese) {
		t.Errorf("docs/start.md has %d pieces of code and docs/start.zh.md %d: want the same, 60 or more", len(english), len(chinese))
		for i := range min(len(english), len(chinese)) {
			if english[i] != chinese[i] {
				t.Fatalf("the first that differs: %q and %q", english[i], chinese[i])
			}
		}
	}
}
