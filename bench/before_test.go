//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// repository makes a repository whose one commit has a Makefile, and returns its directory.
func repository(t *testing.T, makefile string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "Makefile"), []byte(makefile), 0o644); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "init", "-q")
	git(t, dir, "add", ".")
	git(t, dir, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "one")
	return dir
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	if out, err := exec.Command("git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

// A revision that is unknown, cut off or broken is refused with a sentence, and leaves no directory behind.
func TestRefusesRevisions(t *testing.T) {
	broken := repository(t, "build:\n\t@echo no rule for this; false\n")
	git(t, broken, "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "--allow-empty", "-m", "two")
	shallow := filepath.Join(t.TempDir(), "shallow")
	git(t, broken, "clone", "-q", "--depth", "1", "file://"+broken, shallow)
	t.Setenv("TMPDIR", t.TempDir())
	for _, x := range []struct{ root, revision, says string }{
		{broken, "0123abc", `revision "0123abc" is not in this repository: git log`},
		{broken, "--help", `revision "--help" is not in this repository: git log`},
		{shallow, "HEAD~1", "git fetch --unshallow"},
		{broken, "HEAD", "does not build: make: exit status 2\nno rule for this"},
		{repository(t, "build:\n"), "HEAD", "builds no bin/parley"},
		{repository(t, "build:\n\tmkdir bin; printf '#!/bin/sh\\necho which verb; exit 1' >bin/parley\n"), "HEAD", "has no parley serve: exit status 1\nwhich verb"},
	} {
		b := &bench{root: x.root}
		if err := b.buildEarlier(x.revision); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s: %v, and it should say %q", x.revision, err, x.says)
		}
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("directories are left: %v, %v", left, err)
	}
}

// The earlier revision gets the settings that it has, and no cell that needs others.
func TestSettingsOfEarlier(t *testing.T) {
	b := &bench{parley: "new", earlier: earlier{commit: "c0ffee", program: "old", help: "--admin-port n  x\n--processes-max n  x\n--max-rooms-per-connection n  x\n"}}
	one, _ := find("room-10000")
	for name, want := range map[string]string{before: "old serve --host h --port 1 --admin-port 0", "parley": "new serve --host h --port 1 --admin-port 0 --api-port 2"} {
		if cmd := b.server(one, name, "h:1", "h:2"); strings.Join(cmd.Args, " ") != want {
			t.Errorf("%s is started by %q", name, cmd.Args)
		}
	}
	for name, want := range map[string]string{
		"room-10000":        "",
		"visits-10":         "",
		"processes-workers": "revision c0ffee has no --processes",
		"api-publish":       "revision c0ffee has no --api-port",
		"auth-check":        "it measures a package, not a server",
		"auth-revoke":       "it needs other servers",
	} {
		if c, ok := find(name); !ok || b.unequal(c) != want {
			t.Errorf("%s (%v) is left out for %q", name, ok, b.unequal(c))
		}
	}
	for _, c := range chosen(options{before: "HEAD"}) {
		if why := b.unequal(c); why != "" {
			t.Errorf("%s is among those that every revision can play, but %s", c.name, why)
		}
		if c.shared {
			t.Errorf("%s is among those that are about one process, but shares all cores", c.name)
		}
	}
}

func find(name string) (cell, bool) {
	list := chosen(options{scenarios: []string{name}})
	return list[0], len(list) == 1
}

// The table has the median of the ratios within the rounds, not the ratio of the medians, and marks what became dearer.
func TestTableOfRatios(t *testing.T) {
	b := &bench{earlier: earlier{program: "old"}}
	list := []cell{{name: "dear", figure: cpuFigure}, {name: "cheap", figure: cpuFigure}, {name: "rate", figure: coreFigure}, {name: "gone", figure: cpuFigure}}
	for round, pair := range [][2]float64{{1, 1.1}, {4, 4}, {2, 2.1}} {
		for _, c := range list {
			old, now := load.Result{CPU: pair[0]}, load.Result{CPU: pair[1]}
			switch {
			case c.name == "cheap":
				now.CPU = pair[0] * 1.01
			case c.name == "gone":
				now.Void = "it hung up"
			case c.name == "dear" && round == 1:
				old.Void = "too busy"
			}
			b.records = append(b.records, record{Scenario: c.name, Server: before, Round: round, Result: old}, record{Scenario: c.name, Server: "parley", Round: round, Result: now})
		}
	}
	var out strings.Builder
	if void := b.writeBefore(&out, list); void != 4 {
		t.Errorf("%d runs are void", void)
	}
	cpu, core := cpuFigure.label(), coreFigure.label()
	for _, want := range []string{
		"| dear | " + cpu + " | 1.50 | 2.10 | 1.08 | 1.05 | 1.10 | **beyond 1.02**, in 2 of 2 rounds; void: 1 of 6 runs (too busy) |\n",
		"| cheap | " + cpu + " | 2.00 | 2.02 | 1.01 | 1.01 | 1.01 |  |\n",
		"| rate | " + core + " | 500000 | 476190 | 0.95 | 0.91 | 1.00 | **beyond 1.02**, in 2 of 3 rounds |\n",
		"| gone | " + cpu + " | 2.00 |  |  | |  | void: 3 of 6 runs (it hung up) |\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("it lacks %s:\n%s", want, out.String())
		}
	}
}

// The last commit, built apart, plays a room, and very many of them, beside itself.
func TestBesideItself(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	if exec.Command("git", "-C", root, "rev-parse", "HEAD").Run() != nil {
		t.Skip("there is no repository")
	}
	b := &bench{root: root, self: os.Args[0], options: options{out: t.TempDir(), rounds: 1, before: "HEAD"}, servers: []string{before, "parley"}}
	if err := b.buildEarlier("HEAD"); err != nil {
		t.Fatal(err)
	}
	b.parley = b.earlier.program
	small := cell{name: "small", plan: shortPlan("bursts", ""), figure: cpuFigure}
	many, _ := find("visits-100000")
	many.plan.Visited, many.plan.Measure = 20_000, small.plan.Measure
	for _, c := range []cell{small, many} {
		for _, name := range b.servers {
			r := b.play(c, name, 1)
			for ; (r.Messages == 0 || r.Void != "") && c.plan.Measure < time.Minute; c.plan.Measure *= 2 { // a starved machine needs longer
				b.records = b.records[:len(b.records)-1]
				r = b.play(c, name, 1)
			}
		}
	}
	if err := b.reportBefore([]cell{small, many}); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(b.out, "before.md")); err != nil || !strings.Contains(string(text), "| small |") {
		t.Errorf("%v: %s", err, text)
	}
}
