package docs

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

var (
	glossaryRow = regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|$`)
	camel       = regexp.MustCompile(`([a-z0-9])([A-Z])`)
	notLetters  = regexp.MustCompile(`[^a-z]+`)
)

// words is the text of Go files in lower case, identifiers taken apart, one space between words.
func words(all []*source) string {
	var b strings.Builder
	for _, s := range all {
		if !s.test() && s.dir() != "docs" {
			b.WriteString(" " + notLetters.ReplaceAllString(strings.ToLower(camel.ReplaceAllString(s.text, "$1 $2")), " "))
		}
	}
	return b.String() + " "
}

// checkGlossary wants its terms sorted, each once and on one line, and each in use.
func checkGlossary(text, used string) (wrong []string) {
	last := ""
	for _, row := range glossaryRow.FindAllStringSubmatch(text, -1)[1:] {
		word := notLetters.ReplaceAllString(row[1], " ")
		switch term := row[1]; {
		case term == last:
			wrong = append(wrong, term+": it stands twice: one word has one line")
		case term < last:
			wrong = append(wrong, fmt.Sprintf("%s: it stands behind %s: keep the terms in the order of the alphabet", term, last))
		case !strings.Contains(used, " "+word+" ") && !strings.Contains(used, " "+word+"s "):
			wrong = append(wrong, term+": no Go file uses it any more: take its line out, or give the new word")
		}
		last = row[1]
	}
	return wrong
}

// The glossary is sorted, and no longer than the code's vocabulary.
func TestGlossary(t *testing.T) {
	head := "| term | meaning |\n|---|---|\n"
	for _, planted := range []string{"| loop | x |\n| loop | x |\n", "| turn | x |\n| loop | x |\n", "| unheardof | x |\n"} {
		if len(checkGlossary(head+planted, " loop turn ")) == 0 {
			t.Errorf("%q: the planted fault goes unnoticed: the rule does not run", planted)
		}
	}
	text, err := os.ReadFile("glossary.md")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(glossaryRow.FindAllString(string(text), -1)); n < 50 {
		t.Errorf("only %d terms found: the search is wrong", n)
	}
	for _, fault := range checkGlossary(string(text), words(sources(t))) {
		t.Error(fault)
	}
}
