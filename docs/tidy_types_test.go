package docs

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// declared returns what a file declares at its top, methods and the fields of its structs too.
func declared(s *source) (names []*ast.Ident) {
	for _, d := range s.file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			names = append(names, d.Name)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.ValueSpec:
					names = append(names, spec.Names...)
				case *ast.TypeSpec:
					names = append(names, spec.Name)
					names = append(names, fieldNames(spec.Type)...)
				}
			}
		}
	}
	return names
}

// fieldNames are the fields of a struct; what is embedded has a name of its own elsewhere.
func fieldNames(typ ast.Expr) (names []*ast.Ident) {
	if st, ok := typ.(*ast.StructType); ok {
		for _, f := range st.Fields.List {
			names = append(names, f.Names...)
		}
	}
	return names
}

var badName = regexp.MustCompile(`^Get[A-Z]|(Manager|Helper|Info|Data)$`)

// allowedNames are what the seed's own words, or the RFC's, make of a rule.
var allowedNames = []string{"UserData", "SetUserData", "Data"}

func checkNames(s *source) (wrong []string) {
	if s.test() {
		return nil
	}
	for _, name := range declared(s) {
		if name.IsExported() && badName.MatchString(name.Name) && !slices.Contains(allowedNames, name.Name) {
			wrong = append(wrong, name.Name+": name it after what it is, without Get, Manager, Helper, Info, Data")
		}
	}
	return wrong
}

var (
	twin = regexp.MustCompile(`[0-9]$`)
	// word is where the digit is part of the word: encodings, hashes, the RFC's bits, a number of digits or
	// bytes, percentiles.
	word = regexp.MustCompile(`(?i)(utf8|sha1|sha256|rsv[123]|hex4|octets8)$|^p[0-9]+$`)
)

func checkTwins(s *source) (wrong []string) {
	if s.test() {
		return nil
	}
	for _, name := range declared(s) {
		if twin.MatchString(name.Name) && !word.MatchString(name.Name) {
			wrong = append(wrong, name.Name+": two things that differ by a number become one with a kind, or get names that tell them apart")
		}
	}
	return wrong
}

const ownedFields = 4

// checkOwners wants the last line of a larger type's doc to say who may touch it.
func checkOwners(s *source) (wrong []string) {
	if s.test() {
		return nil
	}
	for _, d := range s.file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range g.Specs {
			t, ok := spec.(*ast.TypeSpec)
			if !ok || len(fieldNames(t.Type)) < ownedFields {
				continue
			}
			doc := t.Doc
			if doc == nil && !g.Lparen.IsValid() {
				doc = g.Doc
			}
			if !ownerLast(doc.Text()) {
				wrong = append(wrong, t.Name.Name+" has no owner: end its doc with a line like \"Owner: loop.\" or \"Owner: shared (mutex: mu).\" or \"Owner: immutable after New.\"")
			}
		}
	}
	return wrong
}

func ownerLast(doc string) bool {
	lines := strings.Split(strings.TrimSpace(doc), "\n")
	owner, ok := strings.CutPrefix(lines[len(lines)-1], "Owner: ")
	return ok && len(owner) > 1 && strings.HasSuffix(owner, ".")
}

// threads are the files of the engine and of what it is made of that may leave the single thread, and by
// what. Atomics are for all.
var threads = map[string]string{
	"engine/internal/reactor/acceptor.go":       "go chan select",
	"engine/internal/fleet/ask.go":              "sync",
	"engine/internal/order/follower.go":         "sync",
	"engine/internal/membership/acts.go":        "chan",
	"engine/internal/fleet/gather.go":           "sync",
	"engine/internal/fanout/remotes.go":         "sync",
	"engine/internal/fanout/receipts.go":        "sync",
	"engine/internal/fanout/counted.go":         "sync chan select",
	"engine/internal/fanout/ordering.go":        "sync",
	"engine/internal/fanout/submitted.go":       "chan select",
	"engine/internal/fanout/rooms.go":           "sync",
	"engine/internal/pending/pool.go":           "go sync",
	"engine/internal/session/late.go":           "sync",
	"engine/internal/session/memory.go":         "sync",
	"engine/rooms_api.go":                       "chan",
	"engine/dispatch.go":                        "sync",
	"engine/internal/fleet/link.go":             "sync",
	"engine/events.go":                          "sync",
	"engine/internal/fleet/listeners.go":        "sync",
	"engine/internal/fleet/everywhere.go":       "chan select",
	"engine/internal/guard/guard.go":            "go select",
	"engine/internal/reactor/deputy.go":         "chan select sync",
	"engine/internal/reactor/lane.go":           "chan select",
	"engine/internal/crowds/crowds.go":          "sync",
	"engine/internal/turn/mailbox.go":           "sync",
	"engine/internal/users/users.go":            "sync",
	"engine/internal/reactor/reactor.go":        "go chan select",
	"engine/internal/guard/rescue.go":           "go chan select",
	"engine/server.go":                          "go chan select sync",
	"engine/internal/reactor/writable_linux.go": "go chan",
	"engine/internal/reactor/writable_other.go": "go chan sync",
	"protocol/deflate/inflate.go":               "sync",
	"protocol/deflate/shrink.go":                "sync",
	"protocol/frame/decoder.go":                 "sync",
	"rooms/index.go":                            "sync",
	"rooms/histories.go":                        "sync",
	"rooms/room.go":                             "sync",
}

// threading says which of go, chan, select and sync a file uses.
func threading(s *source) map[string]bool {
	used := map[string]bool{}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			used["go"] = true
		case *ast.SelectStmt:
			used["select"] = true
		case *ast.ChanType, *ast.SendStmt:
			used["chan"] = true
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				used["chan"] = true
			}
		case *ast.ImportSpec:
			if n.Path.Value == `"sync"` {
				used["sync"] = true
			}
		}
		return true
	})
	return used
}

func checkThreads(s *source) (wrong []string) {
	if !core(s) {
		return nil
	}
	allowed := strings.Fields(threads[s.path])
	for kind := range threading(s) {
		if !slices.Contains(allowed, kind) {
			wrong = append(wrong, fmt.Sprintf("uses %s: post to a loop or submit to the pool; where it must be, list it in threads", kind))
		}
	}
	return wrong
}

// The list of those that leave the single thread is no longer than the truth.
func TestThreadsAreUsed(t *testing.T) {
	for _, s := range sources(t) {
		used := threading(s)
		for _, kind := range strings.Fields(threads[s.path]) {
			if !used[kind] {
				t.Errorf("%s: uses no %s any more: take it off the list", s.path, kind)
			}
		}
	}
}

// lastResorts names, for each goroutine of the engine, the function of its file that recovers where one connection is
// worked for; or says why what a stranger sends never comes there.
var lastResorts = map[string]string{
	"engine/internal/reactor/acceptor.go a.run":       "take",
	"engine/internal/reactor/acceptor.go x.land":      "engine/internal/reactor/lane.go await",
	"engine/internal/guard/guard.go panic":            "no stranger: it ends the process on purpose",
	"engine/internal/pending/pool.go p.run":           "do",
	"engine/internal/reactor/reactor.go h.deputy.run": "no stranger: a turn recovers by itself, as on the event loop",
	"engine/internal/reactor/reactor.go r.ticker":     "no stranger: it wakes loops",
	"engine/internal/guard/rescue.go s.proveUnlocked": "no stranger: it takes locks, and ends the process on purpose",
	"engine/internal/guard/rescue.go func":            "no stranger: it takes locks",
	"engine/server.go func":                           "no stranger: it waits for the loops at the end",
	"engine/server.go s.leave":                        "no stranger: it waits for the loops at the end",
	"engine/internal/reactor/writable_linux.go w.run": "no stranger: descriptors become writable",
	"engine/internal/reactor/writable_other.go w.run": "no stranger: descriptors become writable",
	"engine/planted.go g":                             "h",
}

// checkLastResorts wants every goroutine of the engine to have a recover for what a stranger sends.
func checkLastResorts(s *source) (wrong []string) {
	if s.test() || !engineOrFloor(s) {
		return nil
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		g, ok := n.(*ast.GoStmt)
		if !ok {
			return true
		}
		name := "func"
		if _, literal := g.Call.Fun.(*ast.FuncLit); !literal {
			name = types.ExprString(g.Call.Fun)
		}
		resort, listed := lastResorts[s.path+" "+name]
		switch {
		case !listed:
			wrong = append(wrong, "go "+name+": a panic there ends the process; recover where it works for one connection (engine/internal/guard/rescue.go), and name the function in lastResorts")
		case !strings.HasPrefix(resort, "no stranger: ") && !recovers(s, resort):
			wrong = append(wrong, "go "+name+": "+resort+" does not recover any more; see engine/internal/guard/rescue.go, or change lastResorts")
		}
		return true
	})
	return wrong
}

// recovers reports whether a function, of this file where no other is named, calls recover or defers rescue.
func recovers(s *source, function string) bool {
	text, name := s.text, function
	if path, other, elsewhere := strings.Cut(function, " "); elsewhere {
		b, err := os.ReadFile("../" + path)
		if err != nil {
			return false
		}
		text, name = string(b), other
	}
	_, body, found := strings.Cut(text, " "+name+"(")
	if at := strings.Index(text, ") "+name+"("); at >= 0 {
		body, found = text[at:], true
	}
	body, _, _ = strings.Cut(body, "\n}\n")
	return found && (strings.Contains(body, "recover()") || strings.Contains(body, ".rescue("))
}
