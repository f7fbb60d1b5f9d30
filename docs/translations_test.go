package docs

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// translations are the pages that have a Chinese page beside them. A test of bench/interop holds the commands of backend/start.md equal,
// and TestReadmePrograms the programs of the README.
var translations = []string{"docs/concepts.md", "docs/from-the-seed.md"}

var (
	fence   = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```$")
	notLine = regexp.MustCompile(`[^│┌┐└┘├┤┬┴┼▶◀▲▼╳\n]`)
	target  = regexp.MustCompile(`\]\(([^)#]*)(#[^)]*)?\)`)
)

// A Chinese page has the sections, tables, programs, drawings, names and links of the English one, so that neither is left behind. Words
// in backticks are equal in each section, and in each row of a table.
func TestTranslations(t *testing.T) {
	all := files(t, ".md")
	for _, english := range translations {
		chinese := strings.TrimSuffix(english, ".md") + ".zh.md"
		for _, planted := range []string{"\n## More\n", "\n`more`\n", "\n[more](wire.md)\n", "\n```sh\nmore\n```\n", "\n```\n│\n```\n", "\n| `more` | x |\n"} {
			if len(drifts(all[english]+planted, all[chinese])) == 0 {
				t.Errorf("%s: a planted %q goes unnoticed: the rule does not run", english, planted)
			}
		}
		for _, fault := range drifts(all[english], all[chinese]) {
			t.Errorf("%s: %s", chinese, fault)
		}
		for _, pair := range [][2]string{{english, chinese}, {chinese, english}} {
			if !strings.Contains(all[pair[0]], "]("+strings.TrimPrefix(pair[1], "docs/")+")") {
				t.Errorf("%s has no link to %s", pair[0], pair[1])
			}
		}
	}
}

// drifts are the differences between a page and its translation that a translation does not make.
func drifts(english, chinese string) (faults []string) {
	a, b := strings.Split(english, "\n## "), strings.Split(chinese, "\n## ")
	if len(a) != len(b) {
		return []string{fmt.Sprintf("it has %d sections, and the English page %d", len(b), len(a))}
	}
	for i := range a {
		title, _, _ := strings.Cut(a[i], "\n")
		fault := func(what string, in, out []string) {
			if !slices.Equal(in, out) {
				faults = append(faults, fmt.Sprintf("in the section of %q the %s differ:\n%q, and in English\n%q", title, what, out, in))
			}
		}
		programs, drawings, text := parts(a[i])
		ownPrograms, ownDrawings, own := parts(b[i])
		fault("programs", programs, ownPrograms)
		fault("drawings", drawings, ownDrawings)
		fault("rows of tables", rows(text), rows(own))
		fault("words in backticks", names(text), names(own))
		fault("links", links(text), links(own))
	}
	return faults
}

// parts are the blocks of a language, the lines of drawings (without the level ones: their lengths differ with the words), and the text
// without both.
func parts(section string) (programs, drawings []string, text string) {
	for _, m := range fence.FindAllStringSubmatch(section, -1) {
		if m[1] == "" {
			drawings = append(drawings, notLine.ReplaceAllString(m[2], ""))
		} else {
			programs = append(programs, m[2])
		}
	}
	return programs, drawings, fence.ReplaceAllString(section, "")
}

// names are the words in backticks, sorted, each once.
func names(text string) []string {
	all := inlineCode.FindAllString(text, -1)
	slices.Sort(all)
	return slices.Compact(all)
}

// rows are the words in backticks of each row of each table.
func rows(text string) (list []string) {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") {
			all := inlineCode.FindAllString(line, -1)
			slices.Sort(all)
			list = append(list, strings.Join(all, " "))
		}
	}
	return list
}

// links are the pages that a text links to, in either language.
func links(text string) (list []string) {
	for _, m := range target.FindAllStringSubmatch(inlineCode.ReplaceAllString(text, ""), -1) {
		if m[1] != "" {
			list = append(list, strings.Replace(m[1], ".zh.md", ".md", 1))
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
