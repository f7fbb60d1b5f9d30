//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// before is the server of an earlier revision, with which parley is compared: `make bench-before`.
const before = "before"

// earlier is that revision.
//
// Owner: immutable once built.
type earlier struct {
	commit  string
	program string // "" if there is none to compare with
	help    string // its settings: the flags that it may get
}

// knows reports whether the earlier revision has a setting.
func (e earlier) knows(flag string) bool {
	return regexp.MustCompile(regexp.QuoteMeta(flag) + `\b[^-]`).MatchString(e.help)
}

// buildEarlier builds a revision with its own Makefile, in a directory that is gone afterwards. It has no .git, so that nothing
// is left in the repository either.
func (b *bench) buildEarlier(revision string) (err error) {
	commit, err := exec.Command("git", "-C", b.root, "rev-parse", "--verify", "--quiet", "--short", "--end-of-options", revision+"^{commit}").Output()
	if err != nil {
		if b.line("git", "-C", b.root, "rev-parse", "--is-shallow-repository") == "true" {
			return fmt.Errorf("revision %q is not in this repository, which is shallow: git fetch --unshallow brings what is missing", revision)
		}
		return fmt.Errorf("revision %q is not in this repository: git log lists those that are", revision)
	}
	b.earlier.commit = strings.TrimSpace(string(commit))
	fmt.Println("building", b.earlier.commit)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // or these leave the directory behind
	defer stop()
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted")
		}
	}()
	dir, err := os.MkdirTemp("", "parley-before-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, args := range [][]string{{"git", "-C", b.root, "archive", "-o", filepath.Join(dir, "tree.tar"), b.earlier.commit}, {"tar", "-xf", "tree.tar"}, {"make", "-s", "build"}} {
		if err := b.shell(dir, args...); err != nil {
			return fmt.Errorf("revision %s does not build: %s: %w", b.earlier.commit, args[0], err)
		}
	}
	return b.keep(filepath.Join(dir, "bin", "parley"))
}

// keep copies the earlier program beside that of today, and reads its help.
func (b *bench) keep(program string) error {
	kept := filepath.Join(b.root, "bin", "parley-before")
	if err := b.shell(b.root, "install", "-D", program, kept); err != nil {
		return fmt.Errorf("revision %s builds no bin/parley: %w", b.earlier.commit, err)
	}
	help, err := exec.Command(kept, "serve", "--help").CombinedOutput()
	if err != nil {
		return fmt.Errorf("revision %s has no parley serve: %w\n%s", b.earlier.commit, err, help)
	}
	b.earlier.program, b.earlier.help = kept, string(help)
	return nil
}

// program is the binary of parley, of a variant, or of the earlier revision.
func (b *bench) program(name string) string {
	if name == before {
		return b.earlier.program
	}
	return b.parley
}

// promised reports whether a cell is one that a change must not make dearer: what one process costs that serves rooms or echoes.
func (c cell) promised() bool {
	return (c.figure == cpuFigure || c.figure == memoryFigure) && c.base == "" && c.group != "processes" && !c.shared
}

// unequal is the reason for which the earlier revision cannot play a cell; "" if it can.
func (b *bench) unequal(c cell) string {
	if c.micro != "" {
		return "it measures a package, not a server"
	}
	if !c.serves(before) {
		return "it needs other servers"
	}
	flags := slices.Clone(c.args)
	if c.plan.Key != "" {
		flags = append(flags, "--api-port")
	}
	for _, f := range flags {
		if strings.HasPrefix(f, "--") && !b.earlier.knows(f) {
			return "revision " + b.earlier.commit + " has no " + f
		}
	}
	return ""
}

// comparable are the cells that the earlier revision can play. It says which it leaves out.
func (b *bench) comparable(list []cell) []cell {
	return slices.DeleteFunc(list, func(c cell) bool {
		why := b.unequal(c)
		if why != "" {
			fmt.Printf("%s is left out: %s\n", c.name, why)
		}
		return why != ""
	})
}

// dearer is the ratio beyond which a cell is marked.
const dearer = 1.02

// reportBefore writes and prints the comparison with the earlier revision.
func (b *bench) reportBefore(list []cell) error {
	var out strings.Builder
	fmt.Fprintf(&out, "# Beside an earlier revision\n\n%s. Commit %s beside %s: `make bench-before REV=%s`, %d rounds, interleaved. *Ratio* is the "+
		"median over the rounds of the figure now to the figure before in the same round, with the least and the most of them.\n\n",
		b.machine, b.commit, b.earlier.commit, b.earlier.commit, b.rounds)
	void := b.writeBefore(&out, list)
	return b.publish(out.String(), "before.md", void)
}

// writeBefore writes the table, and returns how many runs are void.
func (b *bench) writeBefore(out io.Writer, list []cell) (void int) {
	fmt.Fprintf(out, "| cell | figure | before | now | ratio | least | most | |\n|---|---|---|---|---|---|---|---|\n")
	for _, c := range list {
		by := map[string]row{}
		var voids []string
		for _, r := range b.rows(c) {
			by[r.server], voids = r, append(voids, r.voids...)
		}
		void += len(voids)
		now, remarks := by["parley"], []string{}
		if over := now.dearer(c.figure); over != "" {
			remarks = append(remarks, over)
		}
		if len(voids) > 0 {
			remarks = append(remarks, fmt.Sprintf("void: %d of %d runs (%s)", len(voids), len(voids)+by[before].runs+now.runs, voids[0]))
		}
		ratios := " | | "
		if len(now.ratios) > 0 {
			ratios = fmt.Sprintf("%.2f | %.2f | %.2f", now.ratio, slices.Min(now.ratios), slices.Max(now.ratios))
		}
		fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s |\n", c.name, c.figure.label(), amount(by[before].figure), amount(now.figure), ratios, strings.Join(remarks, "; "))
	}
	return void
}

// dearer says in how many rounds a row's ratio was beyond the bound, if it was at the median.
func (r row) dearer(f figure) string {
	beyond := func(ratio float64) bool {
		if f == rateFigure || f == coreFigure { // more is better
			return ratio < 1/dearer
		}
		return ratio > dearer
	}
	if len(r.ratios) == 0 || !beyond(r.ratio) {
		return ""
	}
	over := 0
	for _, x := range r.ratios {
		if beyond(x) {
			over++
		}
	}
	return fmt.Sprintf("**beyond %.2f**, in %d of %d rounds", dearer, over, len(r.ratios))
}
