package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	anyBlock  = regexp.MustCompile("(?s)```(\\w*)\n(.*?)```")
	shComment = regexp.MustCompile(`(?m) +# .*$`)
	figure    = regexp.MustCompile(`\| \d+[.,]\d+ `)
)

// essentials are what a README says in any language: its blocks without comments, its figures, and its headings' number.
func essentials(text string) (list []string) {
	for _, m := range anyBlock.FindAllStringSubmatch(text, -1) {
		list = append(list, shComment.ReplaceAllString(m[2], ""))
	}
	prose := anyBlock.ReplaceAllString(text, "")
	list = append(list, strings.Join(figure.FindAllString(prose, -1), ""))
	return append(list, fmt.Sprintf("%d headings, %d rows, %d points", strings.Count(prose, "\n## "), strings.Count(prose, "\n| "), strings.Count(prose, "\n- ")))
}

// Both READMEs have the same commands, programs and figures, and as many parts.
func TestReadmesAgree(t *testing.T) {
	texts := files(t, ".md")
	english, chinese := essentials(texts["README.md"]), essentials(texts["README.zh.md"])
	for _, planted := range []string{"\n## More\n", "\n```sh\nmake\n```\n", "\n| a | 1.23 | b |\n"} {
		if slices.Equal(essentials(texts["README.md"]+planted), english) {
			t.Errorf("%q: the planted difference goes unnoticed: the rule does not run", planted)
		}
	}
	for i := range max(len(english), len(chinese)) {
		if i >= len(english) || i >= len(chinese) || english[i] != chinese[i] {
			t.Fatalf("README.md and README.zh.md differ in their part %d: say the same in both\n%q\n%q", i, english[min(i, len(english)-1)], chinese[min(i, len(chinese)-1)])
		}
	}
}

// The commands of the README's ten minutes are those of the tutorial, which TestStart runs.
func TestReadmeTenMinutes(t *testing.T) {
	texts := files(t, ".md")
	_, part, found := strings.Cut(texts["README.md"], "\n## Ten minutes")
	blocks := anyBlock.FindStringSubmatch(part)
	if !found || blocks == nil || blocks[1] != "sh" {
		t.Fatal("README.md has no commands of ten minutes")
	}
	tutorial := ""
	for _, m := range anyBlock.FindAllStringSubmatch(texts["docs/backend/start.md"], -1) {
		if m[1] == "sh" {
			tutorial += m[2]
		}
	}
	if strings.Count(blocks[2], "\n") < 10 || !strings.HasPrefix(tutorial, blocks[2]) {
		t.Errorf("the tutorial docs/backend/start.md does not begin with README.md's commands:\n%s", blocks[2])
	}
}

// pictureBytesMax bounds a picture, as `make pictures` does: a clone has all of them.
const pictureBytesMax = 150 << 10

// The pictures of docs/images are small, and a document shows each.
func TestPicturesAreSmall(t *testing.T) {
	list, err := filepath.Glob("images/*")
	if err != nil || len(list) == 0 {
		t.Fatal("there are no pictures: ", err)
	}
	shown := ""
	for _, text := range files(t, ".md") {
		shown += text
	}
	for _, path := range list {
		about, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if about.Size() > pictureBytesMax {
			t.Errorf("docs/%s has %d bytes: %d are allowed", path, about.Size(), pictureBytesMax)
		}
		if !strings.Contains(shown, path+")") {
			t.Errorf("docs/%s: no document shows it", path)
		}
	}
}

var formatRow = regexp.MustCompile("(?m)^\\| [a-z ]+ \\| (`.*`) \\| `([a-z_/]+\\.go)` \\|")

// The versions of records that docs/versions.md names are those of the code.
func TestVersionsOfRecords(t *testing.T) {
	texts := files(t, "")
	rows := formatRow.FindAllStringSubmatch(texts["docs/versions.md"], -1)
	named := 0
	for _, row := range rows {
		for _, span := range spans.FindAllString(row[1], -1) {
			named++
			name, version, _ := strings.Cut(strings.Trim(span, "`"), " = ")
			if !regexp.MustCompile(`(?m)^\s*` + name + ` += ` + version + `\b`).MatchString(texts[row[2]]) {
				t.Errorf("docs/versions.md: %s has no line %s: say which version it writes", row[2], span)
			}
		}
	}
	if len(rows) != 5 || named != 7 {
		t.Errorf("%d rows with %d versions found: the search is wrong", len(rows), named)
	}
}
