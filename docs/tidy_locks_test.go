package docs

import (
	"fmt"
	"go/ast"
	"go/types"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// locksOf lists the mutexes of a file, as package.Type.field.
func locksOf(s *source) (list []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		fields, ok := spec.Type.(*ast.StructType)
		if !ok {
			return true
		}
		for _, f := range fields.Fields.List {
			if kind := types.ExprString(f.Type); kind != "sync.Mutex" && kind != "sync.RWMutex" {
				continue
			}
			for _, name := range f.Names {
				list = append(list, s.file.Name.Name+"."+spec.Name.Name+"."+name.Name)
			}
		}
		return true
	})
	return list
}

var lockRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\| ?([^|]*)\\|$")

// checkLocks compares the table of locks with the locks of the code. A row names under its lock only locks of later rows.
func checkLocks(table string, code []string) (wrong []string) {
	rows := lockRow.FindAllStringSubmatch(table, -1)
	rank := map[string]int{}
	for i, row := range rows {
		rank[row[1]] = i + 1
		if !slices.Contains(code, row[1]) {
			wrong = append(wrong, row[1]+": there is no such lock any more: take out its row")
		}
	}
	for _, row := range rows {
		for _, under := range strings.FieldsFunc(row[2], func(r rune) bool { return strings.ContainsRune("`, ", r) }) {
			if rank[under] <= rank[row[1]] {
				wrong = append(wrong, fmt.Sprintf("%s is taken under %s, and stands above it, or nowhere", under, row[1]))
			}
		}
	}
	for _, lock := range code {
		if rank[lock] == 0 {
			wrong = append(wrong, lock+": give it a row in docs/locks.md, with the locks that are taken under it")
		}
	}
	return wrong
}

// Every lock of the engine and its rooms has a row in docs/locks.md, and the rows are in the order in which locks are taken.
func TestLocks(t *testing.T) {
	table := "| `a.T.mu` | x | `b.T.mu` |\n| `b.T.mu` | y | |\n"
	if len(checkLocks(table, []string{"a.T.mu", "b.T.mu"})) != 0 {
		t.Error("a table without a fault has one")
	}
	for name, planted := range map[string]struct {
		table string
		code  []string
	}{
		"a lock without a row": {table, []string{"a.T.mu", "b.T.mu", "c.T.mu"}},
		"a row without a lock": {table, []string{"a.T.mu"}},
		"a wrong order":        {"| `b.T.mu` | y | |\n| `a.T.mu` | x | `b.T.mu` |\n", []string{"a.T.mu", "b.T.mu"}},
	} {
		if len(checkLocks(planted.table, planted.code)) == 0 {
			t.Errorf("%s: the planted fault goes unnoticed: the rule does not run", name)
		}
	}
	text, err := os.ReadFile("locks.md")
	if err != nil {
		t.Fatal(err)
	}
	var code []string
	for _, s := range sources(t) {
		if core(s) && !strings.HasPrefix(s.path, "protocol/") {
			code = append(code, locksOf(s)...)
		}
	}
	for _, fault := range checkLocks(string(text), code) {
		t.Error(fault)
	}
}
