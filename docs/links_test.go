package docs

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"
)

var (
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	link       = regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	heading    = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	linkText   = regexp.MustCompile(`!?\[([^\]]*)\]\([^)]*\)`)
)

// anchors are the names by which GitHub reaches the headings of a document.
func anchors(text string) map[string]bool {
	list := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		title := strings.ToLower(linkText.ReplaceAllString(m[1], "$1"))
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
				return r
			}
			return -1
		}, title)
		again := name
		for n := 1; list[again]; n++ {
			again = fmt.Sprintf("%s-%d", name, n)
		}
		list[again] = true
	}
	return list
}

// checkLinks follows the links of a document to files of the repository, and to headings of other documents and its own.
func checkLinks(name, text string, all map[string]string) (n int, wrong []string) {
	text = fenced.ReplaceAllString(text, "")
	for _, m := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(text, ""), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		n++
		target := name
		if m[1] != "" {
			target = path.Join(path.Dir(name), m[1])
		}
		if _, err := os.Stat(filepath.Join("..", target)); err != nil {
			wrong = append(wrong, fmt.Sprintf("the link to %s leads nowhere", m[1]))
		} else if m[2] != "" && strings.HasSuffix(target, ".md") && !anchors(all[target])[m[2]] {
			wrong = append(wrong, fmt.Sprintf("%s has no heading for #%s: correct the link", target, m[2]))
		}
	}
	return n, wrong
}

// Links between documents lead to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	all := files(t, ".md")
	planted := map[string]string{
		"a file": "[x](nothing.md)", "a heading": "[x](wire.md#nothing)", "a heading of its own": "# Title\n\n[x](#nothing)",
		"a heading in a block": "```\n# Title\n```\n[x](#title)", "a heading that stands once": "# Title\n\n[x](#title-1)",
	}
	for kind, text := range planted {
		if _, wrong := checkLinks("docs/README.md", text, map[string]string{"docs/README.md": text, "docs/wire.md": all["docs/wire.md"]}); len(wrong) == 0 {
			t.Errorf("%s: the planted fault goes unnoticed: the rule does not run", kind)
		}
	}
	sound := "# It's `x` (a_b), [y](wire.md) 历史\n\n# Twice\n\n# Twice\n\n[x](#its-x-a_b-y-历史) [x](#twice) [x](#twice-1) [x](wire.md#close-codes)"
	own := map[string]string{"docs/README.md": sound, "docs/wire.md": all["docs/wire.md"]}
	if n, wrong := checkLinks("docs/README.md", sound, own); n != 5 || len(wrong) > 0 {
		t.Errorf("%d links of 5 that lead somewhere are found, with faults: %q", n, wrong)
	}
	sum := 0
	for name, text := range all {
		n, wrong := checkLinks(name, text, all)
		sum += n
		for _, fault := range wrong {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if sum < 100 {
		t.Errorf("only %d links found: the search is wrong", sum)
	}
}
