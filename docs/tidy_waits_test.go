package docs

import (
	"go/ast"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// waitsIn are the packages whose servers can be in lockstep, and startsReal what starts one that is not.
var (
	waitsIn    = []string{"engine", "engine/access", "engine/admin", "engine/api"}
	startsReal = []string{"start", "startServer", "startWith", "startWorkers"}
)

// awaited are the names of times that a server waits for. A test that sets one to less than this waits for it.
var awaited = regexp.MustCompile(`(Timeout|Interval|TTL|Grace|Wait)$`)

const awaitedMax = 5 * time.Second

// mayWait is the table of tests that wait for the clock.
var mayWait = sync.OnceValue(func() string {
	text, err := os.ReadFile("decisions/simulation.md")
	if err != nil {
		panic(err)
	}
	_, table, _ := strings.Cut(string(text), "**Tests that wait for the clock.**")
	return table
})

// checkWaits finds tests that give a server on sockets a short time, to wait until it is over. A time that is computed goes unnoticed.
func checkWaits(s *source) (wrong []string) {
	if !s.test() || !slices.Contains(waitsIn, s.dir()) {
		return nil
	}
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(f.Name.Name, "Test") || strings.Contains(mayWait(), "`"+f.Name.Name+"`") {
			continue
		}
		if name := shortTime(f); name != "" && startsServer(f) {
			wrong = append(wrong, f.Name.Name+" waits for "+name+" on a real server: let time pass in lockstep (newScript, script.pass), "+
				"or add the test to the table in docs/decisions/simulation.md, with the reason")
		}
	}
	return wrong
}

func startsServer(f *ast.FuncDecl) (starts bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			name, ok := call.Fun.(*ast.Ident)
			starts = starts || ok && slices.Contains(startsReal, name.Name)
		}
		return !starts
	})
	return starts
}

// shortTime is the name of the first time that f sets to a constant below awaitedMax; "" if there is none.
func shortTime(f *ast.FuncDecl) (name string) {
	ast.Inspect(f, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || len(a.Lhs) != len(a.Rhs) {
			return name == ""
		}
		for i, left := range a.Lhs {
			to, ok := left.(*ast.SelectorExpr)
			if d := constant(a.Rhs[i]); ok && d > 0 && d < awaitedMax && awaited.MatchString(to.Sel.Name) {
				name = to.Sel.Name
			}
		}
		return name == ""
	})
	return name
}

// constant is the value of time.Second or 3*time.Second; 0 for any other expression.
func constant(x ast.Expr) time.Duration {
	switch x := x.(type) {
	case *ast.SelectorExpr:
		return map[string]time.Duration{"Microsecond": time.Microsecond, "Millisecond": time.Millisecond, "Second": time.Second}[x.Sel.Name]
	case *ast.BinaryExpr:
		if n, ok := x.X.(*ast.BasicLit); ok && x.Op == token.MUL {
			times, _ := strconv.Atoi(n.Value)
			return time.Duration(times) * constant(x.Y)
		}
	}
	return 0
}
