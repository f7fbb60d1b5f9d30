// Package docs holds the rules that the repository keeps, as tests whose messages say what to do instead.
package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// source is one Go file of the repository.
type source struct {
	path string // from the root, with slashes
	text string
	file *ast.File
	fset *token.FileSet
}

func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) dir() string { return filepath.ToSlash(filepath.Dir(s.path)) }

func parse(t testing.TB, path, text string) *source {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return &source{path, text, file, fset}
}

// files returns what the repository holds, without what is built or fetched.
func files(t testing.TB, suffix string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin" || d.Name() == "node_modules" || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, suffix) {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[filepath.ToSlash(strings.TrimPrefix(path, "../"))] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func sources(t testing.TB) []*source {
	var list []*source
	for path, text := range files(t, ".go") {
		list = append(list, parse(t, path, text))
	}
	slices.SortFunc(list, func(a, b *source) int { return strings.Compare(a.path, b.path) })
	return list
}

// rule looks at one file and says what is wrong with it.
type rule struct {
	name    string
	check   func(*source) []string
	planted string // a file that breaks it
	path    string // where the planted file would lie
}

const module = "github.com/parleyd/parley"

var rules = []rule{
	{"imports", checkImports, "package frame\nimport _ \"" + module + "/rooms\"\n", "protocol/frame/x.go"},
	{"a stranger's imports", checkImports, "package verify\nimport _ \"" + module + "/engine\"\n", "cmd/parley/verify/x.go"},
	{"imports of a floor", checkImports, "package fanout\nimport _ \"" + module + "/engine/internal/session\"\n", "engine/internal/fanout/x.go"},
	{"imports of the ground floor", checkImports, "package turn\nimport _ \"" + module + "/rooms\"\n", "engine/internal/turn/x.go"},
	{"imports of an example", checkImports, "package main\nimport _ \"" + module + "/rooms\"\n", "docs/examples/x/x.go"},
	{"imports of an adapter", checkImports, "package admin\nimport _ \"" + module + "/engine/internal/fleet\"\n", "engine/admin/x.go"},
	{"gnet", checkGnet, "package engine\nimport _ \"github.com/panjf2000/gnet/v2\"\n", "engine/x.go"},
	{"length", checkLength, "package x\n" + strings.Repeat("// line\n", 500), "rooms/x.go"},
	{"functions", checkFunctions, "package x\nfunc f() {\n" + strings.Repeat("\t_ = 1\n", 70) + "}\n", "rooms/x.go"},
	{"parameters", checkFunctions, "package x\nfunc f(a, b, c, d, e int) {}\n", "rooms/x.go"},
	{"documentation", checkDocs, "package x\nfunc Exported() {}\n", "rooms/x.go"},
	{"names", checkNames, "package x\n// GetThing gets.\nfunc GetThing() {}\n", "rooms/x.go"},
	{"names of methods", checkNames, "package x\nfunc (t *T) GetThing() {}\n", "rooms/x.go"},
	{"names of types", checkNames, "package x\ntype RoomManager int\n", "rooms/x.go"},
	{"names of variables", checkNames, "package x\nvar First, RoomInfo int\n", "rooms/x.go"},
	{"names of constants", checkNames, "package x\nconst RoomHelper = 1\n", "rooms/x.go"},
	{"names of fields", checkNames, "package x\ntype t struct { RoomData int }\n", "rooms/x.go"},
	{"twins", checkTwins, "package x\nfunc deliver2() {}\n", "rooms/x.go"},
	{"twins of types", checkTwins, "package x\ntype Frame2 int\n", "rooms/x.go"},
	{"owners", checkOwners, "package x\n// t is.\ntype t struct { a, b, c, d int }\n", "rooms/x.go"},
	{"scopes", checkScopes, "package engine\n// Count counts.\n//\n// Scope: both.\nfunc (x *Rooms) Count() int { return 0 }\n", "engine/x.go"},
	{"scopes last", checkScopes, "package engine\n// Count counts. Scope: this worker.\nfunc (s *Server) Count() int { return 0 }\n", "engine/x.go"},
	{"owners last", checkOwners, "package x\n// t is.\n// Owner: loop.\n// More.\ntype (t struct { a, b, c int; d int })\n", "cmd/parley/x.go"},
	{"channels", checkThreads, "package x\nfunc f(c chan int) {}\n", "engine/x.go"},
	{"select", checkThreads, "package x\nfunc f() { select {} }\n", "engine/mailbox.go"},
	{"sync", checkThreads, "package x\nimport \"sync\"\nvar mu sync.Mutex\n", "protocol/frame/x.go"},
	{"sleep", checkSleep, "package x\nimport \"time\"\nfunc f() { time.Sleep(1) }\n", "engine/x_test.go"},
	{"hasty deadlines", checkHaste, "package x\nfunc f(c net.Conn) { c.SetReadDeadline(time.Now().Add(" + "3 * time.Second)) }\n", "engine/x_test.go"},
	{"hasty timers", checkHaste, "package x\nfunc f() { select { case <-time.After(" + "5 * time.Second): } }\n", "cmd/parley/x_test.go"},
	{"waits", checkWaits, "package engine\nfunc TestX(t *testing.T) {\n\tstartServer(t, func(c *Config) { c.AuthTimeout = 300 * time.Millisecond }, nil)\n}\n", "engine/x_test.go"},
	{"timers", checkTimers, "package x\nimport \"time\"\nfunc f() { time.AfterFunc(1, f) }\n", "engine/x.go"},
	{"timers of a floor", checkTimers, "package x\nimport \"time\"\nfunc f() { <-time.NewTimer(1).C }\n", "engine/internal/turn/x.go"},
	{"timers that are none", checkTimers, "package x\nfunc idle() {}\n", "engine/planted.go"},
	{"clock", checkClock, "package x\nimport \"time\"\nvar _ = time.Now()\n", "rooms/x.go"},
	{"last resorts", checkLastResorts, "package x\nfunc f() { go g() }\nfunc g() {}\n", "engine/x.go"},
	{"last resorts that are none", checkLastResorts, "package x\nfunc f() { go g() }\nfunc g() {}\nfunc h() {}\n", "engine/planted.go"},
	{"goroutines", checkThreads, "package x\nfunc f() { go f() }\n", "engine/x.go"},
	{"output", checkOutput, "package engine\nimport \"os\"\nvar _ = os.Stderr\n", "engine/x.go"},
	{"planted faults", checkPlanted, "package x\nvar _ = []fault{{\"x\", \"rooms/room.go\", \"a\", \"b\"}}\n", "engine/sim/x_test.go"},
	{"planted faults of another kind", checkPlanted, "package x\nvar _ = \"-overlay\"\n", "engine/sim/x_test.go"},
	{"leftovers", checkLeftovers, "package x\n// TO" + "DO: later\n", "rooms/x.go"},
}

// Every rule holds for every file, and finds the fault that is planted for it.
func TestRules(t *testing.T) {
	all := sources(t)
	if len(all) < 60 {
		t.Fatalf("only %d Go files found: the walk is wrong", len(all))
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			if len(r.check(parse(t, r.path, r.planted))) == 0 {
				t.Error("the planted fault goes unnoticed: the rule does not run")
			}
			for _, s := range all {
				for _, complaint := range r.check(s) {
					t.Errorf("%s: %s", s.path, complaint)
				}
			}
		})
	}
}

// mayImport says which of our packages a folder may import. The engine's floors have a table, floors.
func mayImport(dir, other string) bool {
	if floor, allowed := floorAllows(dir, other); floor {
		return allowed
	}
	switch {
	case other == "engine/canary": // knows nothing of ours; what serves does without
		return strings.HasPrefix(dir, "cmd/parley/verify") || dir == "engine/conformance"
	case strings.HasPrefix(dir, "cmd/parley/verify"): // a stranger to the server: the wire is all that it knows
		return strings.HasPrefix(other, "protocol/") || strings.HasPrefix(other, "cmd/parley/verify/")
	case strings.HasPrefix(dir, "cmd/"), dir == other:
		return true
	case other == "protocol/ident": // names of workers and connections; knows nothing of ours
		return strings.HasPrefix(dir, "engine") || dir == "rooms"
	case dir == "rooms": // positions are as clients name them
		return other == "protocol/message"
	case other == "engine/logs", other == "engine/internal/invariant": // know nothing of ours
		return strings.HasPrefix(dir, "engine")
	case strings.HasPrefix(dir, "engine/cluster/"): // strangers to each other and to the engine; engine/cluster joins them
		return false
	case strings.HasPrefix(dir, "engine/"):
		return other == "engine" || strings.HasPrefix(other, "protocol/")
	case strings.HasPrefix(dir, "bench"):
		return strings.HasPrefix(other, "protocol/") || strings.HasPrefix(other, "bench")
	case strings.HasPrefix(dir, "docs/examples/"): // applications: what is public, and nothing else
		return other == "engine" || other == "engine/access" || other == "engine/admin" || other == "engine/cluster"
	}
	return false
}

func checkImports(s *source) (wrong []string) {
	for _, i := range s.file.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		other, ours := strings.CutPrefix(path, module+"/")
		if ours && !s.test() && !mayImport(s.dir(), other) {
			wrong = append(wrong, fmt.Sprintf("imports %s: move what is shared down, or define the seam where it is used", other))
		}
	}
	return wrong
}

func checkGnet(s *source) (wrong []string) {
	for _, i := range s.file.Imports {
		if strings.Contains(i.Path.Value, "panjf2000/gnet") && s.path != "engine/internal/reactor/reactor.go" && s.dir() != "engine/internal/reactor" && !s.test() && !strings.HasPrefix(s.path, "bench") {
			wrong = append(wrong, "imports gnet: only engine/reactor.go knows it; go through the loop's wires")
		}
	}
	return wrong
}

func checkLength(s *source) []string {
	if n := strings.Count(s.text, "\n"); n > 500 {
		return []string{fmt.Sprintf("%d lines: split it by concern, 500 are allowed", n)}
	}
	return nil
}

func checkFunctions(s *source) (wrong []string) {
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		lines := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1
		if lines > 70 && !s.test() {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines: move loops into leaves, 70 are allowed", f.Name.Name, lines))
		}
		if n := f.Type.Params.NumFields(); n > 4 && !s.test() {
			wrong = append(wrong, fmt.Sprintf("%s takes %d parameters: fold some into a struct, 4 are allowed", f.Name.Name, n))
		}
	}
	return wrong
}

func checkDocs(s *source) (wrong []string) {
	if s.test() || s.file.Name.Name == "main" {
		return nil
	}
	need := func(name *ast.Ident, doc *ast.CommentGroup) {
		if name.IsExported() && doc.Text() == "" {
			wrong = append(wrong, fmt.Sprintf("%s has no doc comment: say meaning, units, errors, which goroutine may call it", name.Name))
		}
	}
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil || !wellKnown[d.Name.Name] && exportedReceiver(d) {
				need(d.Name, d.Doc)
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					doc := spec.Doc
					if doc == nil {
						doc = d.Doc
					}
					need(spec.Name, doc)
				case *ast.ValueSpec:
					if d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						need(spec.Names[0], nil)
					}
				}
			}
		}
	}
	return wrong
}

// wellKnown methods mean the same for every type.
var wellKnown = map[string]bool{"Error": true, "String": true, "Unwrap": true}

func exportedReceiver(f *ast.FuncDecl) bool {
	t := f.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return !ok || name.IsExported()
}

// calls reports whether a file calls pkg.name.
func calls(s *source, pkg, name string) bool {
	found := false
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == name {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg {
				found = true
			}
		}
		return !found
	})
	return found
}

func checkSleep(s *source) []string {
	if calls(s, "time", "Sleep") {
		return []string{"time.Sleep: poll for the condition, or wait on a timer that can be stopped"}
	}
	return nil
}

var hasty = regexp.MustCompile(`(case <-time\.After\(|Deadline\(time\.Now\(\)\.Add\(|WithTimeout\([^\n,]*, |:= time\.Now\(\)\.Add\()[1-9] ?\* ?time\.Second`)

// checkHaste finds deadlines in tests that a busy machine does not keep. Shorter ones are meant to pass, longer ones are
// long enough.
func checkHaste(s *source) []string {
	if found := hasty.FindString(s.text); found != "" && s.test() && !strings.HasPrefix(s.path, "bench") {
		return []string{fmt.Sprintf("%s: a busy machine breaks it; poll with canary.Wait, or give canary.Stretch of it", found)}
	}
	return nil
}

// clocks are the files that may ask what time it is. Everywhere else time is an argument.
var clocks = []string{"engine/server.go"}

func checkClock(s *source) []string {
	if core(s) && !slices.Contains(clocks, s.path) && calls(s, "time", "Now") {
		return []string{"time.Now: time is an argument, or loop.now"}
	}
	return nil
}

// outputs are the files that may name the process's own output. A write to it blocks where its reader does not read.
var outputs = []string{"cmd/parley/log.go", "cmd/parley/main.go", "engine/cluster/supervise/plan.go"}

func checkOutput(s *source) []string {
	if !s.test() && !strings.HasPrefix(s.dir(), "bench") && !slices.Contains(outputs, s.path) && (calls(s, "os", "Stdout") || calls(s, "os", "Stderr")) {
		return []string{"names os.Stdout or os.Stderr: log, or give lines to a logs.Writer, which never waits for a reader"}
	}
	return nil
}

var leftover = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|"(/tmp|/root|/home)/`)

func checkLeftovers(s *source) (wrong []string) {
	if found := leftover.FindString(s.text); found != "" {
		wrong = append(wrong, fmt.Sprintf("holds %q: finish it, or write it into an issue", found))
	}
	return wrong
}
