package docs

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// closeCodes are the names that the code gives to the close codes of the RFC.
var closeCodes = map[string]int{
	"StatusNormalClosure": int(ws.StatusNormalClosure), "StatusGoingAway": int(ws.StatusGoingAway), "StatusProtocolError": int(ws.StatusProtocolError),
	"StatusUnsupportedData": int(ws.StatusUnsupportedData), "StatusInvalidFramePayloadData": int(ws.StatusInvalidFramePayloadData),
	"StatusPolicyViolation": int(ws.StatusPolicyViolation), "StatusMessageTooBig": int(ws.StatusMessageTooBig),
	"StatusInternalServerError": int(ws.StatusInternalServerError),
}

var statuses = map[string]int{"StatusMisdirectedRequest": 421, "StatusInternalServerError": 500, "StatusServiceUnavailable": 503}

// rowsOf are the elements of each row of a table in the code, as text: strings without their quotes.
func rowsOf(t *testing.T, all []*source, path, name string) (rows [][]string) {
	t.Helper()
	for _, s := range all {
		if s.path != path {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok || v.Names[0].Name != name {
				return true
			}
			for _, row := range v.Values[0].(*ast.CompositeLit).Elts {
				var cells []string
				for _, cell := range row.(*ast.KeyValueExpr).Value.(*ast.CompositeLit).Elts {
					cells = append(cells, cellOf(cell))
				}
				rows = append(rows, cells)
			}
			return false
		})
	}
	if len(rows) < 5 {
		t.Fatalf("%s has %d rows in %s: the search is wrong", path, len(rows), name)
	}
	return rows
}

func cellOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if text, err := strconv.Unquote(e.Value); err == nil {
			return text
		}
		return e.Value
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

var codeRow = regexp.MustCompile("(?m)^\\| (?:`([a-z_]+)`|(\\d+)) \\| ([^|]*) \\|")

// tableOf has the first two cells of each row of a section.
func tableOf(t *testing.T, text, heading string) map[string]string {
	t.Helper()
	_, section, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("docs/codes.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]string{}
	for _, m := range codeRow.FindAllStringSubmatch(section, -1) {
		code := m[1] + m[2]
		if _, twice := rows[code]; twice {
			t.Errorf("docs/codes.md: %s stands twice in %q", code, heading)
		}
		rows[code] = m[3]
	}
	return rows
}

// differ says what a table of the page lacks, and what it has too much.
func differ(heading string, page map[string]string, code map[string]bool) (wrong []string) {
	for _, name := range slices.Sorted(maps.Keys(code)) {
		if _, ok := page[name]; !ok {
			wrong = append(wrong, fmt.Sprintf("%q has no row for %s: say its cause, and what the client should do", heading, name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(page)) {
		if !code[name] {
			wrong = append(wrong, fmt.Sprintf("%q has a row for %s, which the server never sends: take it out", heading, name))
		}
	}
	return wrong
}

// closes are the close codes that the server sends: of its causes, of violations, and of single calls of End.
func closes(t *testing.T, all []*source) map[string]bool {
	t.Helper()
	own, codes := map[string]int{}, map[string]bool{}
	for _, s := range all {
		if s.path != "engine/internal/turn/cause.go" {
			continue
		}
		for _, d := range s.file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				if v := spec.(*ast.ValueSpec); strings.HasPrefix(v.Names[0].Name, "Status") {
					own[v.Names[0].Name], _ = strconv.Atoi(cellOf(v.Values[0]))
				}
			}
		}
	}
	put := func(name string) {
		if n := max(own[name], closeCodes[name]); n > 0 {
			codes[strconv.Itoa(n)] = true
		} else if strings.HasPrefix(name, "Status") {
			t.Errorf("the close code %s has no number here: add it to closeCodes", name)
		}
	}
	for name := range own {
		put(name)
	}
	for _, row := range rowsOf(t, all, "engine/internal/turn/cause.go", "causeTable") {
		put(row[1])
	}
	for _, row := range rowsOf(t, all, "protocol/frame/violation.go", "violationTable") {
		put(row[0])
	}
	for _, s := range all {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && !s.test() && cellOf(call.Fun) == "End" && len(call.Args) == 3 {
				put(cellOf(call.Args[1]))
			}
			return true
		})
	}
	return codes
}

// refusals are the statuses of literals of handshake.Refusal and engine.Refusal.
func refusals(all []*source) map[string]bool {
	codes := map[string]bool{}
	for _, s := range all {
		ast.Inspect(s.file, func(n ast.Node) bool {
			literal, ok := n.(*ast.CompositeLit)
			if !ok || s.test() || literal.Type == nil || cellOf(literal.Type) != "Refusal" {
				return true
			}
			for _, e := range literal.Elts {
				if pair, ok := e.(*ast.KeyValueExpr); ok && cellOf(pair.Key) == "Status" {
					if n, err := strconv.Atoi(cellOf(pair.Value)); err == nil {
						codes[strconv.Itoa(n)] = true
					}
				}
			}
			return true
		})
	}
	return codes
}

// adminStatuses are the statuses with which the admin listener refuses.
func adminStatuses(all []*source) map[string]bool {
	codes := map[string]bool{}
	for _, s := range all {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && !s.test() && s.dir() == "engine/admin" && cellOf(call.Fun) == "Error" && len(call.Args) == 3 {
				if code := statuses[cellOf(call.Args[2])]; code > 0 {
					codes[strconv.Itoa(code)] = true
				}
			}
			return true
		})
	}
	return codes
}

// The tables of docs/codes.md have a row for each error code, each close code and each status that the server sends, and no other.
func TestCodes(t *testing.T) {
	all, text := sources(t), files(t, ".md")["docs/codes.md"]
	errors := map[string]bool{}
	for _, row := range rowsOf(t, all, "protocol/message/code.go", "codeTable") {
		errors[row[0]] = row[0] != "ok"
	}
	delete(errors, "ok")
	problems := map[string]bool{}
	const ofAPI = "Problems of the HTTP API"
	shown := tableOf(t, text, ofAPI)
	for _, row := range rowsOf(t, all, "engine/api/problem.go", "problems") {
		problems[row[0]] = true
		if shown[row[0]] != row[1] {
			t.Errorf("docs/codes.md: %s has the status %s, not %q", row[0], row[1], shown[row[0]])
		}
	}
	for _, c := range []struct {
		heading string
		code    map[string]bool
	}{
		{"Error codes", errors}, {"Close codes", closes(t, all)}, {"Statuses of the handshake", refusals(all)},
		{"Statuses of the admin listener", adminStatuses(all)}, {ofAPI, problems},
	} {
		page := tableOf(t, text, c.heading)
		planted := maps.Clone(c.code)
		planted["0"] = true
		if len(differ(c.heading, page, planted)) == 0 || len(differ(c.heading, page, nil)) == 0 || len(c.code) < 3 {
			t.Errorf("%q: a code that is planted goes unnoticed: the rule does not run", c.heading)
		}
		for _, fault := range differ(c.heading, page, c.code) {
			t.Errorf("docs/codes.md: %s", fault)
		}
	}
	for _, row := range rowsOf(t, all, "engine/internal/turn/cause.go", "causeTable") {
		if row[0] != "none" && !strings.Contains(text, "`"+row[0]+"`") {
			t.Errorf("docs/codes.md does not name the cause `%s` of parley_connections_ended_total", row[0])
		}
	}
}
