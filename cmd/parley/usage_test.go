package main

import (
	"slices"
	"strings"
	"testing"
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
