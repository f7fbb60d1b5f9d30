package docs

import (
	"fmt"
	"go/ast"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// floors says of each floor of the engine what of ours it may import, a path or all below one that ends in a slash. A floor
// knows only floors below it, and none knows package engine.
var floors = map[string][]string{
	"protocol/ident":             {},
	"engine/access":              {"engine", "protocol/pattern"},
	"engine/internal/invariant":  {},
	"engine/internal/turn":       {"protocol/", "engine/internal/invariant", "engine/internal/rate", "engine/internal/crowds"},
	"engine/internal/reactor":    {"engine/internal/turn"},
	"engine/internal/users":      {"protocol/ident"},
	"engine/internal/lists":      {},
	"engine/internal/fleet":      {"engine/internal/turn", "protocol/ident", "protocol/frame"},
	"engine/internal/order":      {"engine/internal/fleet", "protocol/", "rooms"},
	"engine/internal/pending":    {"engine/internal/turn", "engine/internal/fleet", "engine/internal/invariant", "protocol/"},
	"engine/internal/fanout":     {"engine/internal/turn", "engine/internal/fleet", "engine/internal/order", "engine/internal/users", "engine/internal/pending", "engine/internal/invariant", "protocol/", "rooms"},
	"engine/internal/session":    {"engine/internal/turn", "engine/internal/fleet", "engine/internal/pending", "engine/internal/fanout", "protocol/", "rooms"},
	"engine/internal/budget":     {"engine/internal/turn", "engine/internal/fanout", "engine/internal/session"},
	"engine/internal/rate":       {},
	"engine/internal/crowds":     {},
	"engine/internal/lockstep":   {"engine/internal/turn"},
	"engine/internal/settings":   {"protocol/pattern", "rooms"},
	"engine/internal/guard":      {"engine/internal/turn", "engine/internal/pending", "engine/logs", "protocol/"},
	"engine/internal/figures":    {"rooms", "engine/internal/order", "engine/internal/budget", "engine/internal/turn", "engine/internal/fleet", "engine/internal/pending", "engine/internal/fanout", "engine/internal/session"},
	"engine/internal/membership": {"engine/internal/turn", "engine/internal/order", "engine/internal/reactor", "engine/internal/fleet", "engine/internal/fanout", "engine/internal/session", "engine/internal/lists", "engine/internal/users", "protocol/ident", "protocol/frame", "protocol/message", "rooms"},
	"engine":                     {"engine/internal/", "protocol/", "rooms", "engine/logs"},
	"engine/admin":               {"engine"},
	"engine/api":                 {"engine", "engine/access", "protocol/"},
	"engine/cluster":             {"engine", "protocol/ident", "engine/cluster/", "engine/logs", "engine/internal/fleet", "engine/internal/fanout", "engine/internal/session", "engine/internal/membership", "engine/internal/order", "engine/internal/settings", "engine/internal/budget", "engine/internal/figures", "rooms"},
	"engine/sim":                 {"engine", "protocol/ident", "engine/cluster/bus", "engine/internal/fleet", "engine/internal/fanout", "engine/internal/session", "engine/internal/membership", "engine/internal/order", "rooms"},
}

// unbuilt are the floors whose code still lies in package engine.
var unbuilt = []string{}

// floorAllows reports whether a folder is a floor, and whether its table lists the other package.
func floorAllows(dir, other string) (floor, allowed bool) {
	list, floor := floors[dir]
	return floor, slices.ContainsFunc(list, func(entry string) bool {
		return entry == other || strings.HasSuffix(entry, "/") && strings.HasPrefix(other, entry)
	})
}

// The list of unbuilt floors is no longer than the truth, and what is built stands in the table.
func TestFloorsExist(t *testing.T) {
	for dir := range floors {
		_, err := os.Stat("../" + dir)
		switch {
		case err == nil && slices.Contains(unbuilt, dir):
			t.Errorf("%s: it exists: take it off the list unbuilt", dir)
		case err != nil && !slices.Contains(unbuilt, dir):
			t.Errorf("%s: there is no such package: take its row out of the table floors", dir)
		}
	}
	for _, s := range sources(t) {
		if _, known := floors[s.dir()]; !known && strings.HasPrefix(s.path, "engine/internal/") {
			t.Errorf("%s: give its package a row in the table floors: what it may import", s.path)
		}
	}
}

// core reports whether a file is of the engine or of what it stands on.
func core(s *source) bool {
	return !s.test() && (engineOrFloor(s) || s.dir() == "rooms" || strings.HasPrefix(s.dir(), "protocol/"))
}

func engineOrFloor(s *source) bool {
	return s.dir() == "engine" || strings.HasPrefix(s.dir(), "engine/internal/")
}

// timers names the functions of the engine that use a clock of the process, with the reason. All other time is the loop's, so
// that a made-up world can advance it.
var timers = map[string]string{
	"engine/internal/reactor/acceptor.go wait":      "the acceptor has no loop",
	"engine/internal/reactor/reactor.go RingIn":     "it rings for the earliest of a loop's timers",
	"engine/internal/reactor/reactor.go ticker":     "the tick of all loops comes from it",
	"engine/internal/guard/rescue.go proveUnlocked": "it watches a goroutine that may be stuck",
	"engine/server.go Shutdown":                     "the caller's goroutine waits for loops that may be held",
	"engine/planted.go idle":                        "it uses none",
}

var timing = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Sleep", "Tick"}

// timed returns the functions of a file that use package time's timers, each with what it uses.
func timed(s *source) map[string]string {
	used := map[string]string{}
	for _, d := range s.file.Decls {
		name := "var"
		if f, ok := d.(*ast.FuncDecl); ok {
			name = f.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(timing, sel.Sel.Name) {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" {
					used[name] = "time." + sel.Sel.Name
				}
			}
			return true
		})
	}
	return used
}

func checkTimers(s *source) (wrong []string) {
	if s.test() || !engineOrFloor(s) {
		return nil
	}
	used := timed(s)
	for name, call := range used {
		if timers[s.path+" "+name] == "" {
			wrong = append(wrong, name+" uses "+call+": take the loop's timer, so that a simulation can advance it; where there is no loop, list it in timers with the reason")
		}
	}
	for entry := range timers {
		if path, name, _ := strings.Cut(entry, " "); path == s.path && used[name] == "" {
			wrong = append(wrong, name+" uses no timer any more: take it off the list timers")
		}
	}
	return wrong
}

// The files of the list exist.
func TestTimersExist(t *testing.T) {
	for entry := range timers {
		if path, _, _ := strings.Cut(entry, " "); path != "engine/planted.go" {
			if _, err := os.Stat("../" + path); err != nil {
				t.Errorf("%s: there is no such file any more: take its functions off the list timers", path)
			}
		}
	}
}

// What is allowed without an entry in sizes.
const (
	methodsMax = 60   // of one type
	filesMax   = 25   // of one package, without tests
	engineMax  = 4400 // lines of package engine, without its floors and without tests
)

// sizes are the figures that are over their bounds today. They may only shrink: a figure that grew fails, and so does one that
// shrank by a tenth while its entry did not.
var sizes = map[string]int{}

// measure returns all figures that the bounds are about, and the bound of each.
func measure(all []*source) (figures, bounds map[string]int) {
	figures, bounds = map[string]int{}, map[string]int{}
	count := func(key string, n, bound int) { figures[key] += n; bounds[key] = bound }
	for _, s := range all {
		if s.test() {
			continue
		}
		count("files of "+s.dir(), 1, filesMax)
		if s.dir() == "engine" {
			count("lines of engine", strings.Count(s.text, "\n"), engineMax)
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				count("methods of "+s.dir()+"."+typeName(f.Recv.List[0].Type), 1, methodsMax)
			}
		}
	}
	return figures, bounds
}

// weigh compares figures with their bounds and with a list of exceptions.
func weigh(figures, bounds, listed map[string]int) (wrong []string) {
	for _, key := range slices.Sorted(maps.Keys(figures)) {
		n, allowed := figures[key], listed[key]
		switch {
		case n <= bounds[key] && allowed > 0:
			wrong = append(wrong, fmt.Sprintf("%s: %d, within %d: take it off the list sizes", key, n, bounds[key]))
		case n <= bounds[key]:
		case allowed == 0:
			wrong = append(wrong, fmt.Sprintf("%s: %d, and %d are allowed: split it by concern", key, n, bounds[key]))
		case n > allowed:
			wrong = append(wrong, fmt.Sprintf("%s: %d, grown from %d: put what is new on a floor of its own (%d is the aim)", key, n, allowed, bounds[key]))
		case n*10 <= allowed*9:
			wrong = append(wrong, fmt.Sprintf("%s: %d, shrunk from %d: write the new figure into the list sizes", key, n, allowed))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(listed)) {
		if _, exists := figures[key]; !exists {
			wrong = append(wrong, key+": there is nothing of that name any more: take it off the list sizes")
		}
	}
	return wrong
}

// No type, no package and not the engine outgrow what one person can read.
func TestSizes(t *testing.T) {
	planted := []struct{ figure, listed int }{{61, 0}, {101, 100}, {90, 100}, {60, 100}}
	for _, p := range planted {
		if len(weigh(map[string]int{"x": p.figure}, map[string]int{"x": methodsMax}, map[string]int{"x": p.listed})) == 0 {
			t.Errorf("%+v: the planted fault goes unnoticed: the rule does not run", p)
		}
	}
	if len(weigh(nil, nil, map[string]int{"x": 100})) == 0 {
		t.Error("a listed figure of nothing goes unnoticed: the rule does not run")
	}
	figures, bounds := measure(sources(t))
	if figures["lines of engine"] < 1000 || figures["methods of engine.Server"] < 10 {
		t.Errorf("%v: the count is wrong", figures)
	}
	for _, fault := range weigh(figures, bounds, sizes) {
		t.Error(fault)
	}
}
