package main

import (
	"regexp"
	"strings"
	"testing"
)

// fenced matches the blocks of a page: commands, and what they print.
var fenced = regexp.MustCompile("(?s)```(sh|text)\n(.*?)```")

// Each command of the operator's walk does what the page says, on a machine of its own, as root. Every line that the page shows
// is printed; where it has "...", any characters are. The machine reaches no network: nginx is installed already.
func TestOperatorsWalk(t *testing.T) {
	need(t, "nginx")
	need(t, "openssl")
	page := string(content(t, "../../docs/walks/operator.md"))
	m := boot(t, folder(t, newerVersion))
	m.run("cp /release/0/* /root/")
	printed, commands := "", 0
	for _, block := range fenced.FindAllStringSubmatch(page, -1) {
		if block[1] == "sh" {
			commands++
			printed = m.run("cd /root\n" + block[2])
			continue
		}
		for line := range strings.Lines(block[2]) {
			if !shows(printed, strings.TrimSuffix(line, "\n")) {
				t.Errorf("the page says\n%sand the commands print\n%s", line, printed)
			}
		}
	}
	if commands < 8 {
		t.Errorf("only %d blocks of commands found: the search is wrong", commands)
	}
}

// shows reports whether one of the lines is as the page has it.
func shows(printed, line string) bool {
	parts := strings.Split(strings.Join(strings.Fields(line), " "), "...")
	for i, part := range parts {
		parts[i] = regexp.QuoteMeta(part)
	}
	as := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$")
	for got := range strings.Lines(printed) {
		if as.MatchString(strings.Join(strings.Fields(got), " ")) {
			return true
		}
	}
	return false
}

// A line that the commands did not print is found out.
func TestShows(t *testing.T) {
	if !shows("a\n worker 0  12  ready\n", "worker 0  ...  ready") || shows("worker 0 12 ready\n", "worker 1 ... ready") || shows("ok!\n", "ok") {
		t.Error("lines are compared wrongly")
	}
}
