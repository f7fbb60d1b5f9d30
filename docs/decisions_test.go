package docs

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	decisionHead = regexp.MustCompile(`^# ([^\n]+)\n\nDecision (\d+), ((?:accepted|proposed|superseded by \[[^\n]+\]\([a-z-]+\.md\),) (\d{4}-\d{2}-\d{2}))\.\n`)
	changedLine  = regexp.MustCompile(`(?m)^Changed (.*)$`)
	changedWell  = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2}): \S.*\.$`)
	decisionRow  = regexp.MustCompile(`(?m)^\| (\d+) \| \[([^\]]+)\]\(decisions/([a-z-]+\.md)\) \| \S.* \| (.*) \|$`)
)

// demanded are the sections of a decision that CONTRIBUTING asks for, beside the choice itself.
var demanded = []string{"What lost", "What would change our mind"}

// section is the text below a heading of the second level, up to the next one.
func section(text, name string) string {
	_, rest, _ := strings.Cut(text, "\n## "+name+"\n")
	rest, _, _ = strings.Cut(rest, "\n## ")
	return strings.TrimSpace(rest)
}

// checkDecision says what a page of a decision lacks.
func checkDecision(text string) (wrong []string) {
	head := decisionHead.FindStringSubmatch(text)
	if head == nil {
		return []string{`write "Decision 1, accepted 2006-01-02." below the title, or proposed, or superseded by a link`}
	}
	last := head[4]
	for _, m := range changedLine.FindAllStringSubmatch(text, -1) {
		date := changedWell.FindStringSubmatch(m[1])
		if date == nil || date[1] < last {
			wrong = append(wrong, fmt.Sprintf("%q: write \"Changed 2006-01-02: what changed.\", the latest change last", m[0]))
		} else {
			last = date[1]
		}
	}
	for _, name := range demanded {
		if len(section(text, name)) < 40 {
			wrong = append(wrong, fmt.Sprintf("write a section %q", "## "+name))
		}
	}
	return wrong
}

// checkNumbers wants the numbers 1, 2, 3 and so on, each once, and the rows of the index in that order with title and status.
func checkNumbers(pages map[string]string, index string) (wrong []string) {
	byNumber := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		head := decisionHead.FindStringSubmatch(pages[name])
		if head == nil {
			continue
		}
		if other := byNumber[head[2]]; other != "" {
			wrong = append(wrong, fmt.Sprintf("%s and %s both have the number %s", other, name, head[2]))
		}
		byNumber[head[2]] = name
	}
	rows := decisionRow.FindAllStringSubmatch(index, -1)
	for i := range max(len(pages), len(rows)) {
		number := fmt.Sprint(i + 1)
		name := byNumber[number]
		if name == "" {
			wrong = append(wrong, "no decision has the number "+number)
			continue
		}
		head := decisionHead.FindStringSubmatch(pages[name])
		status := head[3]
		if changes := changedLine.FindAllStringSubmatch(pages[name], -1); len(changes) > 0 {
			date, _, _ := strings.Cut(changes[len(changes)-1][1], ":")
			status += ", changed " + date
		}
		if i >= len(rows) || rows[i][1] != number || rows[i][2] != head[1] || rows[i][3] != name || rows[i][4] != status {
			wrong = append(wrong, fmt.Sprintf("row %s of the index: want %s, %q, with the status %q", number, name, head[1], status))
		}
	}
	return wrong
}

// Every decision has a number, a status, its dates, and the sections that a reader looks for; the index lists them by number.
func TestDecisions(t *testing.T) {
	all := files(t, ".md")
	pages := map[string]string{}
	for name, text := range all {
		if rest, ok := strings.CutPrefix(name, "docs/decisions/"); ok {
			pages[rest] = text
		}
	}
	index := section(all["docs/README.md"], "Decisions")
	for _, c := range [][2]string{
		{"Decision 10, ", ""}, {"accepted 2026-11-24.", "accepted."}, {"accepted", "liked"}, {"## What lost", "## Others"},
		{"## What would change our mind", "## Mind"}, {"\nContext", "\nChanged 2026-11-23: too early.\n\nContext"}, {"\nContext", "\nChanged lately.\n\nContext"},
	} {
		if planted := strings.Replace(pages["bus.md"], c[0], c[1], 1); len(checkDecision(planted)) != 1 {
			t.Errorf("%q in place of %q: the planted fault goes unnoticed: the rule does not run", c[1], c[0])
		}
	}
	for _, c := range [][2]string{{"Decision 10", "Decision 9"}, {"Decision 10", "Decision 99"}, {"# The bus", "# A bus"}, {"accepted 2026", "proposed 2026"}} {
		planted := maps.Clone(pages)
		planted["bus.md"] = strings.Replace(pages["bus.md"], c[0], c[1], 1)
		if len(checkNumbers(planted, index)) == 0 {
			t.Errorf("%q in place of %q: the planted fault goes unnoticed: the rule does not run", c[1], c[0])
		}
	}
	if len(checkNumbers(pages, strings.Replace(index, "| 3 | ", "| 4 | ", 1))) == 0 || len(checkNumbers(pages, index+"\n| 21 | [x](decisions/x.md) | y | z |")) == 0 {
		t.Error("a row that is planted into the index goes unnoticed: the rule does not run")
	}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, fault := range checkDecision(pages[name]) {
			t.Errorf("docs/decisions/%s: %s", name, fault)
		}
	}
	for _, fault := range checkNumbers(pages, index) {
		t.Errorf("docs/README.md: %s", fault)
	}
	if len(pages) < 20 {
		t.Errorf("only %d decisions found: the search is wrong", len(pages))
	}
}
