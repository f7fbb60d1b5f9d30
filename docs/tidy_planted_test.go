package docs

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Tests plant faults: they change texts of the sources, and build a server of them. Those tests take minutes. This one says in
// a moment that a source has changed below a fault.

// checkPlanted wants each text that a planted fault changes to stand once in its file.
func checkPlanted(s *source) (wrong []string) {
	if !s.test() {
		return nil
	}
	lists := 0
	ast.Inspect(s.file, func(n ast.Node) bool {
		list, ok := n.(*ast.CompositeLit)
		if !ok || !isListOf(list.Type, "fault") {
			return true
		}
		lists++
		for _, element := range list.Elts {
			if complaint := misplanted(element); complaint != "" {
				wrong = append(wrong, fmt.Sprintf("line %d: %s", s.fset.Position(element.Pos()).Line, complaint))
			}
		}
		return false
	})
	if lists == 0 && strings.Contains(s.text, "\"-overlay\"") {
		wrong = append(wrong, "it builds from changed sources, and has no list []fault: tell docs/tidy_planted_test.go what it changes")
	}
	return wrong
}

func isListOf(kind ast.Expr, name string) bool {
	list, ok := kind.(*ast.ArrayType)
	if !ok {
		return false
	}
	of, ok := list.Elt.(*ast.Ident)
	return ok && of.Name == name
}

// misplanted says what is wrong with a fault, empty for nothing. One without a file is planted together with another one.
func misplanted(element ast.Expr) string {
	one, ok := element.(*ast.CompositeLit)
	if !ok {
		return "write the fault as a literal"
	}
	texts := map[string]string{}
	for i, value := range one.Elts {
		name := ""
		if pair, keyed := value.(*ast.KeyValueExpr); keyed {
			name, value = pair.Key.(*ast.Ident).Name, pair.Value
		} else if i < 3 {
			name = []string{"name", "file", "was"}[i]
		}
		text, ok := textOf(value)
		if !ok && (name == "file" || name == "was") {
			return "write " + name + " as a literal"
		}
		texts[name] = text
	}
	if texts["file"] == "" {
		return ""
	}
	text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(texts["file"])))
	if err != nil {
		return err.Error()
	}
	if n := strings.Count(string(text), texts["was"]); n != 1 {
		return fmt.Sprintf("the fault %q: %s holds %q %d times: plant it where its text stands once", texts["name"], texts["file"], texts["was"], n)
	}
	return ""
}

// textOf is the value of a string that is written as literals, added up.
func textOf(value ast.Expr) (text string, ok bool) {
	switch value := value.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(value.Value)
		return text, err == nil && value.Kind == token.STRING
	case *ast.BinaryExpr:
		left, good := textOf(value.X)
		right, too := textOf(value.Y)
		return left + right, good && too && value.Op == token.ADD
	}
	return "", false
}
