package docs

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine"
)

// Words of the interfaces that pages name: figures, paths, targets, settings, codes, fields. Flags, commands and variables are the
// concern of TestPages in cmd/parley, and symbols that of TestNamesExist.

var (
	figureWord = regexp.MustCompile(`\bparley_[a-z0-9_]+\b`)
	pathWord   = regexp.MustCompile(`/v1/[a-z/]*[a-z]\b`)
	targetWord = regexp.MustCompile("\\bmake ([a-z][a-z-]*)")
	snakeWord  = regexp.MustCompile(`[a-z][a-z0-9]*(?:_[a-z0-9]+)+`)
	wholeSnake = regexp.MustCompile(`^` + snakeWord.String() + `$`)
	settingSet = regexp.MustCompile(`^([a-z]+(?:_[a-z]+)*): \S`)
	topKey     = regexp.MustCompile(`^([a-z]\w*):(?: |$)`)
	codeField  = regexp.MustCompile(`"code": ?"([a-z_]+)"`)
	goSelector = regexp.MustCompile(`(?:^|[^\w.")\]])(\w+)\.([A-Z]\w*)`)
	theTarget  = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// lexicon is what the code calls things.
type lexicon struct {
	figures, paths, targets, settings, codes, snake map[string]bool

	tree *tree

	used map[string]bool // entries of otherWords that a page needed
}

// otherWords are words of pages that look like ours, with what they are.
var otherWords = map[string]string{
	"/v1/plot":                      "a part of the path of a Go module",
	"c.Write":                       "the page on style shows what to write in its place",
	"bind":                          "the kernel's error, as Go prints it",
	"epoll_wait":                    "a system call",
	"large_client_header_buffers":   "nginx's",
	"no_such_lot":                   "a code that docs/library-handlers.md makes up for its application",
	"package":                       "the form of a commit's title",
	"process_cpu_seconds_total":     "the Prometheus client's figure of a process",
	"process_open_fds":              "the Prometheus client's figure of a process",
	"process_resident_memory_bytes": "the Prometheus client's figure of a process",
	"proxy_hide_header":             "nginx's",
	"proxy_read_timeout":            "nginx's",
	"queue":                         "an option of the client in TypeScript",
	"server_name":                   "nginx's",
	"recovered":                     "a field of Centrifugo's answers",
}

func learn(t *testing.T) *lexicon {
	w := &lexicon{figures: map[string]bool{}, paths: map[string]bool{}, targets: map[string]bool{}, settings: map[string]bool{},
		codes: map[string]bool{}, snake: map[string]bool{}, used: map[string]bool{}, tree: plant(t)}
	put := func(name string) {
		if name != "" {
			w.figures["parley_"+name] = true
		}
	}
	for _, f := range engine.ServerFigures() {
		put(f.Metric)
	}
	for _, f := range engine.LoopFigures() {
		put(f.Metric)
	}
	for _, f := range engine.WorkerFigures() {
		put(f.Metric)
	}
	all := files(t, "")
	var api struct {
		Paths map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(all["engine/api/openapi.json"]), &api); err != nil {
		t.Fatal(err)
	}
	for path := range api.Paths {
		w.paths[path] = true
	}
	for _, m := range theTarget.FindAllStringSubmatch(all["Makefile"], -1) {
		w.targets[m[1]] = true
	}
	for _, m := range settingRow.FindAllStringSubmatch(all["docs/configuration.md"], -1) {
		w.settings[m[1]] = true
	}
	w.settings["keys"], w.settings["rooms"] = true, true
	code := sources(t)
	for _, row := range slices.Concat(rowsOf(t, code, "protocol/message/code.go", "codeTable"), rowsOf(t, code, "engine/api/problem.go", "problems")) {
		w.codes[row[0]] = true
	}
	for _, s := range code {
		if s.test() || s.dir() == "docs" || strings.HasPrefix(s.path, "bench/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				w.hear(l.Value)
			}
			return true
		})
	}
	for name, text := range all {
		if name == "engine/api/openapi.json" || strings.HasPrefix(name, "clients/js/src/") || strings.HasPrefix(name, "docs/backend/") && !strings.HasSuffix(name, ".md") {
			w.hear(text)
		}
	}
	return w
}

func (w *lexicon) hear(text string) {
	for _, word := range snakeWord.FindAllString(text, -1) {
		w.snake[word] = true
	}
}

func (w *lexicon) unknown(set map[string]bool, name string) bool {
	if set[name] {
		return false
	}
	if otherWords[name] != "" {
		w.used[name] = true
		return false
	}
	return true
}

// inCode is what a page sets as code: its spans, and its blocks line by line.
func inCode(page string) (inline, lines []string) {
	for _, block := range anyBlock.FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.Split(strings.TrimRight(block[2], "\n"), "\n")...)
	}
	for _, span := range spans.FindAllString(anyBlock.ReplaceAllString(page, ""), -1) {
		inline = append(inline, strings.Join(strings.Fields(strings.Trim(span, "`")), " "))
	}
	return inline, lines
}

// check says which words of a page the code does not know.
func (w *lexicon) check(page string) (wrong []string) {
	inline, lines := inCode(page)
	for _, code := range slices.Concat(inline, lines) {
		for _, name := range figureWord.FindAllString(code, -1) {
			bare := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				bare = strings.TrimSuffix(bare, suffix)
			}
			if w.unknown(w.figures, name) && w.unknown(w.figures, bare) {
				wrong = append(wrong, name+": there is no such figure")
			}
		}
		for _, name := range pathWord.FindAllString(code, -1) {
			if w.unknown(w.paths, name) {
				wrong = append(wrong, name+": the HTTP API has no such path")
			}
		}
		for _, m := range codeField.FindAllStringSubmatch(code, -1) {
			if w.unknown(w.codes, m[1]) {
				wrong = append(wrong, fmt.Sprintf("%q: neither the protocol nor the API has such a code", m[1]))
			}
		}
		for _, m := range targetWord.FindAllStringSubmatch(code, -1) {
			if w.unknown(w.targets, m[1]) {
				wrong = append(wrong, "make "+m[1]+": the Makefile has no such target")
			}
		}
	}
	wrong = append(wrong, w.checkBlocks(page)...)
	for _, span := range inline {
		if m := settingSet.FindStringSubmatch(span); m != nil && w.unknown(w.settings, m[1]) {
			wrong = append(wrong, fmt.Sprintf("`%s`: there is no such setting", span))
		}
		if wholeSnake.MatchString(span) && w.unknown(w.snake, span) && w.unknown(w.figures, span) {
			wrong = append(wrong, fmt.Sprintf("`%s`: the code has no such word", span))
		}
	}
	return wrong
}

// checkBlocks looks at the settings of YAML and the symbols of Go. A block of another program's YAML begins with one of its keys.
func (w *lexicon) checkBlocks(page string) (wrong []string) {
	for _, block := range anyBlock.FindAllStringSubmatch(page, -1) {
		for line := range strings.Lines(block[2]) {
			if m := topKey.FindStringSubmatch(strings.TrimSpace(line)); m != nil && block[1] == "yaml" && line[0] != ' ' && w.unknown(w.settings, m[1]) {
				wrong = append(wrong, m[1]+": there is no such setting")
			}
			for _, m := range goSelector.FindAllStringSubmatch(line, -1) {
				if block[1] != "go" || receivers[m[1]] == "" && w.tree.packages[m[1]] == nil {
					continue
				}
				if w.tree.has(receivers[m[1]], m[2], 0) || w.tree.packages[m[1]][m[2]] {
					continue
				}
				if w.unknown(nil, m[1]+"."+m[2]) {
					wrong = append(wrong, m[1]+"."+m[2]+" is not declared")
				}
			}
		}
	}
	return wrong
}

// pages are the documents that users read: those below docs, the READMEs and that of the client.
func pages(t testing.TB) map[string]string {
	all := files(t, ".md")
	maps.DeleteFunc(all, func(name, _ string) bool {
		return !strings.HasPrefix(name, "docs/") && !strings.HasPrefix(name, "README") && name != "clients/js/README.md"
	})
	return all
}

// Each figure, path, target, setting, code and field that a page names is one that the code has.
func TestWordsOfPages(t *testing.T) {
	w := learn(t)
	for _, planted := range []string{"`parley_no_such_total`", "```\nparley_no_such_total 1\n```", "`GET /v1/nothing`", "```sh\ncurl x/v1/nothing\n```", "`make nothing`",
		"```sh\nmake nothing\n```", "`no_such_setting: 1`", "`nosuch: 1`", "`no_such_code`",
		"`{\"code\":\"nosuch\"}`", "```yaml\nnosuch: 1\n```", "```go\nengine.Nothing()\n```", "```go\n\tsrv.Vanish(c)\n```"} {
		if len(w.check(planted)) == 0 {
			t.Errorf("%q: the planted fault goes unnoticed: the rule does not run", planted)
		}
	}
	all := pages(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, fault := range w.check(all[name]) {
			t.Errorf("%s: %s: correct it, or list it in otherWords", name, fault)
		}
	}
	for name := range otherWords {
		if !w.used[name] {
			t.Errorf("%s: no page names it any more: take it off the list otherWords", name)
		}
	}
	if len(w.figures) < 50 || len(w.paths) < 20 || len(w.targets) < 10 || len(w.settings) < 50 || len(all) < 40 {
		t.Errorf("%d figures, %d paths, %d targets, %d settings, %d pages: the search is wrong", len(w.figures), len(w.paths), len(w.targets), len(w.settings), len(all))
	}
}
