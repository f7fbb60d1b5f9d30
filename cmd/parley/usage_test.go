package main

import (
	"slices"
	"strings"
	"testing"
	"unicode"
)

// The help shows every setting once, beside the settings that its text refers to, and names those for programs.
func TestUsage(t *testing.T) {
	var grouped []string
	for _, g := range groups {
		grouped = append(grouped, g.keys...)
		order := slices.Clone(g.keys)
		slices.SortFunc(order, func(a, b string) int { return slices.Index(keys(), a) - slices.Index(keys(), b) })
		if !slices.Equal(order, g.keys) {
			t.Errorf("%s: %v is not the order of the table, %v", g.title, g.keys, order)
		}
	}
	for _, key := range keys() {
		if n := len(slices.DeleteFunc(slices.Clone(grouped), func(k string) bool { return k != key })); n != 1 {
			t.Errorf("%s stands in %d groups of usage.go: put it into the one where it is looked for", key, n)
		}
	}
	if len(grouped) != len(table) {
		t.Errorf("%d keys in groups, %d settings: a group names a key that there is not", len(grouped), len(table))
	}
	for _, verb := range []string{"serve", "check-config", "status", "healthcheck"} {
		code, out, stderr := parley(t, verb, "--help")
		if code != exitOK || stderr != "" {
			t.Fatal(verb, code, stderr)
		}
		for _, s := range table {
			if strings.Count(out, "--"+s.flag()+" ")+strings.Count(out, "--"+s.flag()+"[=true]") != 1 {
				t.Errorf("%s --help does not show --%s once", verb, s.flag())
			}
		}
		programs := strings.Index(out, "For programs with package engine")
		if programs < 0 || strings.Index(out, "--offload-timeout") < programs || strings.Index(out, "--log-level") > programs || !strings.Contains(out, "--config") || !strings.Contains(out, "--help") {
			t.Errorf("%s --help:\n%s", verb, out)
		}
		if strings.Index(out, "--offload-workers") > strings.Index(out, "--offload-timeout") || strings.Index(out, "--backlog-soft-bytes") > strings.Index(out, "--backlog-grace") {
			t.Errorf("%s --help tears apart what belongs together:\n%s", verb, out)
		}
	}
}

// The help of parley has each command once, in a group; a command's own flags and examples stand in front of the settings.
func TestUsageOfCommands(t *testing.T) {
	code, out, stderr := parley(t, "--help")
	if code != exitOK || stderr != "" {
		t.Fatal(code, stderr)
	}
	for _, g := range verbs {
		if !strings.Contains(out, "\n"+g.title+":\n") {
			t.Errorf("the help has no group %s:\n%s", g.title, out)
		}
		for _, name := range g.keys {
			if c, _, err := newRoot().Find([]string{name}); err != nil || c.GroupID != g.title {
				t.Errorf("the group %s names %s, which is no command: take it out", g.title, name)
			}
		}
	}
	for _, c := range newRoot().Commands() {
		if strings.Count(out, "\n  "+c.Name()+" ") != 1 || c.Short == "" || !unicode.IsUpper(rune(c.Short[0])) || strings.HasSuffix(c.Short, ".") {
			t.Errorf("the help does not show %s once, with one sentence without a full stop:\n%s", c.Name(), out)
		}
	}
	_, out, _ = parley(t, "token", "--help")
	for _, text := range []string{"parley token check TOKEN", "parley token --user 42", "--join"} {
		if at := strings.Index(out, text); at < 0 || at > strings.Index(out, "--host") {
			t.Errorf("token --help does not show %q in front of the settings:\n%s", text, out)
		}
	}
}

// Each text of a setting is made of whole sentences, without the last full stop.
func TestHelpIsSentences(t *testing.T) {
	for _, s := range table {
		if s.help == "" || !unicode.IsUpper(rune(s.help[0])) && s.key != "auth" || strings.HasSuffix(s.help, ".") || strings.ContainsAny(s.help, "`\n") {
			t.Errorf("%s: %q: write sentences, without the last full stop", s.key, s.help)
		}
	}
}
