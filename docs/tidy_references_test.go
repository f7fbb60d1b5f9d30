package docs

import (
	"fmt"
	"go/ast"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

// tree is what a text may name: files, folders, tests and symbols of the repository.
type tree struct {
	files    []string
	dirs     map[string]bool
	tests    map[string][]string        // names of tests, fuzzers and benchmarks, by folder
	packages map[string]map[string]bool // by the folder's last part: what packages of that name declare at their top
	members  map[string]map[string]bool // by type: methods and fields
	embedded map[string]map[string]bool // by type: the types that it embeds
	names    map[string]bool            // everything that is declared anywhere
	foreign  map[string]bool            // the last parts of the paths that are imported and not ours
	used     map[string]bool            // entries of notOurs that a text needed
}

func plant(t testing.TB) *tree {
	w := &tree{dirs: map[string]bool{}, tests: map[string][]string{}, packages: map[string]map[string]bool{},
		members: map[string]map[string]bool{}, embedded: map[string]map[string]bool{}, names: map[string]bool{}, foreign: map[string]bool{}, used: map[string]bool{}}
	for path := range files(t, "") {
		w.files = append(w.files, path)
		for dir := path; dir != "."; {
			dir = filepath.ToSlash(filepath.Dir(dir))
			w.dirs[dir] = true
		}
	}
	for _, s := range sources(t) {
		for _, i := range s.file.Imports {
			if path := strings.Trim(i.Path.Value, `"`); !strings.HasPrefix(path, module) {
				w.foreign[strings.TrimSuffix(filepath.Base(path), ".go")] = true
			}
		}
		for _, name := range declared(s) {
			w.names[name.Name] = true
		}
		for _, d := range s.file.Decls {
			w.declare(s, d)
		}
	}
	return w
}

func put(m map[string]map[string]bool, key, name string) {
	if m[key] == nil {
		m[key] = map[string]bool{}
	}
	m[key][name] = true
}

func (w *tree) declare(s *source, d ast.Decl) {
	pkg := filepath.Base(s.dir())
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv != nil {
			put(w.members, typeName(d.Recv.List[0].Type), d.Name.Name)
			return
		}
		put(w.packages, pkg, d.Name.Name)
		if s.test() && testName.MatchString(d.Name.Name) {
			w.tests[s.dir()] = append(w.tests[s.dir()], d.Name.Name)
			put(w.packages, "tests", d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.ValueSpec:
				for _, name := range spec.Names {
					put(w.packages, pkg, name.Name)
				}
			case *ast.TypeSpec:
				put(w.packages, pkg, spec.Name.Name)
				w.describe(spec)
			}
		}
	}
}

// describe takes a struct's fields or an interface's methods, and what it embeds.
func (w *tree) describe(spec *ast.TypeSpec) {
	var list []*ast.Field
	switch t := spec.Type.(type) {
	case *ast.StructType:
		list = t.Fields.List
	case *ast.InterfaceType:
		list = t.Methods.List
	}
	put(w.members, spec.Name.Name, "")
	for _, f := range list {
		for _, name := range f.Names {
			put(w.members, spec.Name.Name, name.Name)
		}
		if len(f.Names) == 0 {
			put(w.members, spec.Name.Name, typeName(f.Type))
			put(w.embedded, spec.Name.Name, typeName(f.Type))
		}
	}
}

func typeName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return typeName(t.X)
	case *ast.IndexExpr:
		return typeName(t.X)
	case *ast.SelectorExpr:
		return t.Sel.Name
	case *ast.Ident:
		return t.Name
	}
	return ""
}

// has reports whether a type of that name has the member, also by what it embeds.
func (w *tree) has(typ, member string, depth int) bool {
	if w.members[typ][member] {
		return true
	}
	for inner := range w.embedded[typ] {
		if depth < 3 && w.has(inner, member, depth+1) {
			return true
		}
	}
	return false
}

var (
	testName = regexp.MustCompile(`^(Test|Fuzz|Benchmark|Example)[A-Z]\w*$`)
	anyTest  = regexp.MustCompile(`\b(Test|Fuzz|Benchmark|Example)[A-Z]\w+\b`)
	aFile    = regexp.MustCompile(`^[\w.-]+(/[\w.-]+)*\.(go|md|svg|mod|json|js|mjs|conf|service)$`)
	aFolder  = regexp.MustCompile(`^(cmd|docs|engine|protocol|rooms|bench|clients)(/[\w-]+)*$`)
	inText   = regexp.MustCompile(`[\w./-]*\w\.(go|md)\b`)
	chain    = regexp.MustCompile(`(?:^|[^\w.$>/])\*?(\w+)(?:\(\))?\.(\w+)(?:\.(\w+))?`)
	alone    = regexp.MustCompile(`^\*?([A-Z]\w*)(\([^()]*\))?$`)
	domain   = regexp.MustCompile(`^[\w.-]+\.(com|in|net|org)(/|$)`)
	pattern  = regexp.MustCompile(`-(?:run|bench) '?([^' ]+)'?`)
	folder   = regexp.MustCompile(` \./(\S+)`)
	fenced   = regexp.MustCompile("(?s)```.*?```")
	command  = regexp.MustCompile("`go test [^`]+`")
	spans    = regexp.MustCompile("`[^`]+`")
)

// receivers are the variables that the documents' pieces of code use, and their types.
var receivers = map[string]string{"srv": "Server", "c": "Conn", "r": "Request", "emitter": "Emitter"}

// fileKnown reports whether exactly one file has the name: a path from the root, from a document's or a comment's folder,
// or, in a document, a bare name that no second file has.
func (w *tree) fileKnown(name, from string) bool {
	n := 0
	for _, f := range w.files {
		if f == name || f == path.Join(from, name) {
			return true
		}
		if strings.HasSuffix(from, ".md") && strings.HasSuffix(f, "/"+name) {
			n++
		}
	}
	return n == 1
}

// checkSpan looks at what a document has between backticks.
func (w *tree) checkSpan(span, from string) string {
	switch {
	case w.excused(span):
	case strings.Contains(span, "://"), domain.MatchString(span):
	case aFile.MatchString(span):
		if !w.fileKnown(span, from) {
			return "there is no such file, or more than one: give the path from the root"
		}
	case aFolder.MatchString(span):
		if !w.dirs[span] {
			return "there is no such folder"
		}
	case strings.HasPrefix(span, "go test "):
		return w.checkCommand(span)
	case alone.MatchString(span):
		name := alone.FindStringSubmatch(span)[1]
		if strings.IndexFunc(name, unicode.IsLower) >= 0 && !w.names[name] {
			return "nothing of that name is declared: correct it, or list it in notOurs"
		}
	default:
		return w.checkChains(span)
	}
	return ""
}

// checkChains looks at selectors: pkg.Name, Type.Member, pkg.Type.Member, srv.Method.
func (w *tree) checkChains(span string) string {
	for _, m := range chain.FindAllStringSubmatch(span, -1) {
		first, second, third := m[1], m[2], m[3]
		if typ := receivers[first]; typ != "" {
			first = typ
		}
		switch {
		case w.excused(first + "." + second):
		case w.packages[first][second] && (third == "" || w.has(second, third, 0)), w.has(first, second, 0):
		case w.packages[first] == nil && (w.foreign[first] || unicode.IsDigit(rune(first[0]))):
		default:
			return fmt.Sprintf("%s.%s is not declared: correct it, or list it in notOurs", m[1], second)
		}
	}
	return ""
}

// checkCommand wants the folder of a "go test", and a test or benchmark there that its pattern selects.
func (w *tree) checkCommand(span string) string {
	dir := folder.FindStringSubmatch(span)
	if dir == nil || !w.dirs[dir[1]] {
		return "there is no such folder"
	}
	for _, m := range pattern.FindAllStringSubmatch(span, -1) {
		found := m[1] == "^$"
		for _, name := range w.tests[dir[1]] {
			found = found || regexp.MustCompile(m[1]).MatchString(name)
		}
		if !found {
			return "no test or benchmark there is selected by " + m[1]
		}
	}
	return ""
}

// notOurs are words between backticks in documents that look like names of ours, with what they are.
var notOurs = map[string]string{
	"EnhancedWebSocketServer": "HybridPHP's",
	"Enroll":                  "gnet's",
	"Execute":                 "gnet's",
	"KV_seats":                "a stream's name in JetStream",
	"KV_sessions":             "a stream's name in JetStream",
	"KV_shared":               "a stream's name in JetStream",
	"LimitNOFILE":             "systemd's",
	"MemoryMax":               "systemd's",
	"Parley":                  "a class of docs/backend/python/backend.py",
	"asyncio.to_thread":       "Python's",
	"parley.call":             "a method of docs/backend/python/backend.py",
	"parley.members":          "a method of docs/backend/python/backend.py",
	"parley.publish":          "a method of docs/backend/python/backend.py",
	"ParleyProblem":           "a class of docs/backend/php/parley.php",
	"RawSyscall":              "Go's",
	"StateDirectory":          "systemd's",
	"TimeoutStopSec":          "systemd's",
	"Upgrade":                 "a header field",
	"Via":                     "a header field",
	"Wake":                    "gnet's",
	"WatchdogSec":             "systemd's",
	"chat.json":               "a file that docs/walks/go.md has the reader write",
	"chat_test.go":            "a file that docs/walks/go.md has the reader write",
	"go.work":                 "Go's",
	"kv.Update":               "the NATS client's",
	"ledger.wanted":           "a subject on the bus",
	"main.go":                 "a file that docs/walks/go.md has the reader write",
	"nats.go":                 "the NATS client's repository",
	"parley.yaml":             "a file of the operator's",
}

func (w *tree) excused(name string) bool {
	if notOurs[name] == "" {
		return false
	}
	w.used[name] = true
	return true
}

// checkDocument looks at a document's names: spans between backticks, and tests wherever they are named.
func (w *tree) checkDocument(path, text string) (wrong []string) {
	text = fenced.ReplaceAllString(text, "")
	for _, span := range spans.FindAllString(text, -1) {
		span = strings.Join(strings.Fields(strings.Trim(span, "`")), " ")
		if fault := w.checkSpan(span, path); fault != "" && !testName.MatchString(span) {
			wrong = append(wrong, fmt.Sprintf("`%s`: %s", span, fault))
		}
	}
	text = command.ReplaceAllString(text, "")
	for _, name := range anyTest.FindAllString(text, -1) {
		if !w.packages["tests"][name] && !w.excused(name) {
			wrong = append(wrong, name+": there is no such test: name the one that shows it")
		}
	}
	return wrong
}

// checkComments looks at the files and the tests that a Go file's comments name. A bare file name is of the comment's folder.
func (w *tree) checkComments(s *source) (wrong []string) {
	for _, group := range s.file.Comments {
		text := group.Text()
		for _, name := range inText.FindAllString(text, -1) {
			if !w.fileKnown(name, s.dir()) && !w.excused(name) {
				wrong = append(wrong, name+": there is no such file: give the path from the root, or a name of this folder")
			}
		}
		for _, name := range anyTest.FindAllString(text, -1) {
			if !w.packages["tests"][name] && !w.excused(name) {
				wrong = append(wrong, name+": there is no such test")
			}
		}
	}
	return wrong
}

// What documents and comments name exists.
func TestNamesExist(t *testing.T) {
	w := plant(t)
	planted := map[string]string{
		"a file": "`engine/room.go`", "a file of two folders": "`doc.go`", "a folder": "`engine/rooms`", "a test": "TestOfNothing",
		"a symbol": "`engine.Nothing`", "a method": "`Rooms.Vanish`", "a method of a package's type": "`rooms.Room.nothing`",
		"a method of a variable": "`srv.Vanish(c)`", "an exported name": "`VanishThen`", "an unexported type's": "`loop.vanish`",
		"a pattern": "`go test -run Vanish ./engine`", "a selector of nothing": "`vanished.Name`", "a chain": "`Rooms().Vanish(c)`",
	}
	for name, text := range planted {
		if len(w.checkDocument("docs/x.md", text)) == 0 {
			t.Errorf("%s: the planted fault goes unnoticed: the rule does not run", name)
		}
	}
	for _, text := range []string{"package x\n\n// See room.go.\n", "package x\n\n// See TestOfNothing.\n"} {
		if len(w.checkComments(parse(t, "engine/x.go", text))) == 0 {
			t.Errorf("%q: the planted fault goes unnoticed: the rule does not run", text)
		}
	}
	documents := 0
	for path, text := range files(t, ".md") {
		if path == "CHANGELOG.md" || path == "docs/metrics.md" || path == "clients/js/README.md" {
			continue // names that were; generated from the code; names of TypeScript, which the client's own tests look up
		}
		documents++
		for _, fault := range w.checkDocument(path, text) {
			t.Errorf("%s: %s", path, fault)
		}
	}
	for _, s := range sources(t) {
		for _, fault := range w.checkComments(s) {
			t.Errorf("%s: %s", s.path, fault)
		}
	}
	for name := range notOurs {
		if !w.used[name] {
			t.Errorf("%s: no text names it any more: take it off the list notOurs", name)
		}
	}
	if documents < 20 {
		t.Errorf("only %d documents found: the walk is wrong", documents)
	}
}
