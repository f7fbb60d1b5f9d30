package docs

import (
	"go/ast"
	"go/token"
	"regexp"
	"strings"
	"testing"
)

var (
	symptomRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \| [^|]+ \| [^|]+ \|$`)
	aFigure    = regexp.MustCompile(`^parley_[a-z_]+$`)
	aCode      = regexp.MustCompile(`\b(\d{3,4})\b`)
	aWord      = regexp.MustCompile(`^[a-z_]+$`)
)

// notSaid are pieces of the second column that other programs show, with theirs.
var notSaid = map[string]string{
	"curl": "a program", "http://[::1]:9090": "an address", "dmesg": "a program", "MemoryMax": "systemd's", "nstat -az TcpExtListenOverflows": "a program",
	"systemctl show parley -p LimitNOFILE": "a program", "systemctl status parley": "a program", "parley status": "our program", "part": "a label",
	"signal 9 (killed)": "the kernel's cause", `{"type":"whoami"}`: "a message", "/stats": "a path", "broadcast_sent": "a message", "reconnected": "a message",
}

// said is the text of the server: its strings, one to a line.
func said(all []*source) string {
	var b strings.Builder
	for _, s := range all {
		if s.test() || s.dir() == "docs" || strings.HasPrefix(s.path, "bench/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				b.WriteString(cellOf(l) + "\n")
			}
			return true
		})
	}
	return b.String()
}

// unsaid are the words of the column "how you recognise it" that the server does not say.
func unsaid(page, text, figures, codes string) (wrong []string) {
	for _, row := range symptomRow.FindAllStringSubmatch(page, -1) {
		for _, span := range spans.FindAllString(row[2], -1) {
			switch span = strings.Trim(span, "`"); {
			case notSaid[span] != "":
			case aFigure.MatchString(span):
				if !strings.Contains(figures, "`"+span+"`") {
					wrong = append(wrong, span+": there is no such figure")
				}
			case aWord.MatchString(span) && strings.Contains(codes, "`"+span+"`"):
			case !strings.Contains(text, span):
				wrong = append(wrong, span+": the server does not say this")
			}
		}
		for _, code := range aCode.FindAllString(spans.ReplaceAllString(row[1]+" "+row[2], ""), -1) {
			if !strings.Contains(codes, "\n| "+code+" | ") {
				wrong = append(wrong, code+": the server sends no such code")
			}
		}
	}
	return wrong
}

// What docs/troubleshooting.md tells a reader to look for is what the server says: its log lines, its figures, its codes.
func TestTroubleshooting(t *testing.T) {
	all := files(t, ".md")
	page, text := all["docs/troubleshooting.md"], said(sources(t))
	figures, codes := all["docs/metrics.md"], all["docs/codes.md"]
	for _, planted := range []string{"`parley_no_such_total`", "`no line of the log`", "499"} {
		if len(unsaid("| a | "+planted+" | c | d |", text, figures, codes)) != 1 {
			t.Errorf("%s: the planted fault goes unnoticed: the rule does not run", planted)
		}
	}
	for _, fault := range unsaid(page, text, figures, codes) {
		t.Errorf("docs/troubleshooting.md: %s", fault)
	}
	if n := len(symptomRow.FindAllString(page, -1)); n < 50 {
		t.Errorf("only %d symptoms: the search is wrong", n)
	}
	for code := range tableOf(t, codes, "Close codes") {
		if code > "1008" && !strings.Contains(page, "| "+code) && code != "4007" {
			t.Errorf("docs/troubleshooting.md has no symptom with the close code %s", code)
		}
	}
}
