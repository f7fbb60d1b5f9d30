package docs

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	settingRow   = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\| ")
	openDefault  = regexp.MustCompile("`([a-z_]+): ([^`]+)`")
	limitDefault = regexp.MustCompile("`([a-z_]+)` ([\\d,]+)( KiB| s)?")
)

// checkDefaults compares what a page says of defaults with the table of settings.
func checkDefaults(page, settings string) (n int, wrong []string) {
	defaults := map[string]string{}
	for _, m := range settingRow.FindAllStringSubmatch(settings, -1) {
		defaults[m[1]] = m[2]
	}
	compare := func(key, said string) {
		n++
		if is, known := defaults[key]; !known || is != said {
			wrong = append(wrong, fmt.Sprintf("%s is said to be %q by default, and is %q", key, said, is))
		}
	}
	open, limits, _ := strings.Cut(page, "\n## A checklist")
	_, open, _ = strings.Cut(open, "\n## What is open by default\n")
	_, limits, _ = strings.Cut(limits, "\n## Limits that protect\n")
	for row := range strings.Lines(open) {
		cell, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " | ")
		for _, m := range openDefault.FindAllStringSubmatch(cell, -1) {
			compare(m[1], strings.ReplaceAll(m[2], `"`, ""))
		}
	}
	for _, m := range limitDefault.FindAllStringSubmatch(limits, -1) {
		size, _ := strconv.Atoi(strings.ReplaceAll(m[2], ",", ""))
		if m[3] == " KiB" {
			size <<= 10
		}
		compare(m[1], strconv.Itoa(size))
	}
	return n, wrong
}

// The defaults that docs/SECURITY.md names are those of the settings.
func TestDefaultsOfSecurity(t *testing.T) {
	texts := files(t, ".md")
	page, settings := texts["docs/SECURITY.md"], texts["docs/configuration.md"]
	for from, to := range map[string]string{"`auth: off`": "`auth: none`", "64 KiB": "32 KiB", "`max_connections_per_room: 0`": "`max_members: 0`"} {
		if _, wrong := checkDefaults(strings.Replace(page, from, to, 1), settings); len(wrong) != 1 {
			t.Errorf("%s in place of %s: %d faults are found of one: the rule does not run", to, from, len(wrong))
		}
	}
	n, wrong := checkDefaults(page, settings)
	for _, fault := range wrong {
		t.Error(fault)
	}
	if n < 15 {
		t.Errorf("only %d defaults found: the search is wrong", n)
	}
}
