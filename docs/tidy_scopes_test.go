package docs

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// unscoped are the methods of the types below that mean the same whichever worker they are called on, or that only what joins
// the workers calls.
var unscoped = map[string]string{
	"Server.Addr":           "all workers listen on it",
	"Server.Config":         "all workers have one",
	"Server.Rooms":          "it has methods of its own",
	"Server.Everywhere":     "it has methods of its own",
	"Server.On":             "the program registers it in each worker",
	"Server.Use":            "the program registers it in each worker",
	"Server.OnConnect":      "the program registers it in each worker",
	"Server.OnAuth":         "the program registers it in each worker",
	"Server.OnAuthOptional": "the program registers it in each worker",
	"Server.SetPolicy":      "the program sets it in each worker",
	"Server.OnRaw":          "the program registers it in each worker",
	"Server.RegisterFilter": "the program registers it in each worker",
	"Server.GuardLog":       "the program calls it in each process",
	"Server.Worker":         "package cluster joins workers by it",
}

// scoped are the types whose methods see one worker or all.
var scoped = []string{"Server", "Rooms", "Everywhere"}

// publicMethods calls f for the exported methods of the scoped types.
func publicMethods(s *source, f func(name string, d *ast.FuncDecl)) {
	if s.test() || s.dir() != "engine" {
		return
	}
	for _, decl := range s.file.Decls {
		d, ok := decl.(*ast.FuncDecl)
		if !ok || d.Recv == nil || !d.Name.IsExported() {
			continue
		}
		star, ok := d.Recv.List[0].Type.(*ast.StarExpr)
		if !ok {
			continue
		}
		if of, ok := star.X.(*ast.Ident); ok && slices.Contains(scoped, of.Name) {
			f(of.Name+"."+d.Name.Name, d)
		}
	}
}

// checkScopes wants the last paragraph of a public method's doc to say whether it is about one worker or all.
func checkScopes(s *source) (wrong []string) {
	publicMethods(s, func(name string, d *ast.FuncDecl) {
		paragraphs := strings.Split(strings.TrimSpace(d.Doc.Text()), "\n\n")
		last := paragraphs[len(paragraphs)-1]
		said := last == "Scope: this worker." || last == "Scope: all workers."
		switch _, exempt := unscoped[name]; {
		case exempt && strings.Contains(d.Doc.Text(), "Scope:"):
			wrong = append(wrong, name+" says its scope: take it off the list unscoped")
		case !exempt && !said:
			wrong = append(wrong, fmt.Sprintf("%s does not say how much it sees: end its doc with a paragraph \"Scope: this worker.\" or \"Scope: all workers.\", or list it in unscoped with the reason", name))
		case !exempt && strings.Count(d.Doc.Text(), "Scope:") != 1:
			wrong = append(wrong, name+" says its scope twice: keep the last paragraph")
		}
	})
	return wrong
}

// The list of those without a scope is no longer than the truth.
func TestUnscopedExist(t *testing.T) {
	found := map[string]bool{}
	for _, s := range sources(t) {
		publicMethods(s, func(name string, _ *ast.FuncDecl) { found[name] = true })
	}
	for name := range unscoped {
		if !found[name] {
			t.Errorf("%s: there is no such method any more: take it off the list", name)
		}
	}
}
