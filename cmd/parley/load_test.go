package main

import (
	"strings"
	"testing"
)

// A server that admits every client warns when it starts, and when its settings are checked.
func TestOpenness(t *testing.T) {
	for _, c := range []struct {
		args string
		open bool
	}{
		{"--host=0.0.0.0", true}, {"--host=::", true}, {"--host=[::]", true}, {"--host=192.0.2.1", true}, {"--host=parley.example", true},
		{"", false}, {"--host=localhost", false}, {"--host=127.9.9.9", false}, {"--host=::1", false}, {"--host=[::1]", false},
		{"--host=0.0.0.0 --origins=https://a.example", false}, {"--host=0.0.0.0 --origins=*", false},
	} {
		code, _, stderr := parley(t, append([]string{"check-config"}, strings.Fields(c.args)...)...)
		if code != exitOK || strings.Contains(stderr, "every client that reaches the port may connect, from any page, and join any room") != c.open {
			t.Errorf("%s: %d %q", c.args, code, stderr)
		}
		s, _ := loaded(t, strings.Fields(c.args)...)
		if (len(s.notes) == 1) != c.open {
			t.Errorf("%s: serve would log %q", c.args, s.notes)
		}
	}
}
