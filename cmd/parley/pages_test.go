package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var (
	pageBlock  = regexp.MustCompile("(?s)```[a-z]*\n(.*?)```")
	pageSpan   = regexp.MustCompile("`[^`]+`")
	invocation = regexp.MustCompile(`(?:^|[\s"'(/])parley +([a-z][a-z-]*(?: .*)?)$`)
	ofUnit     = regexp.MustCompile(`\b(systemctl|journalctl)\b`) // parley is a service there
	ofShell    = regexp.MustCompile(`[|;&] `)                     // between two commands
	argument   = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s]+`)
	longFlag   = regexp.MustCompile(`(?:^|[\s"'(\[])--([a-z][a-z-]*)`)
	variable   = regexp.MustCompile(`\b` + envPrefix + `([A-Z0-9_]*[A-Z0-9])\b`)
)

// otherFlags are flags of other programs that pages name alone, with the program.
var otherFlags = map[string]string{
	"--build-arg": "docker", "--check": "sha256sum", "--dmesg": "journalctl", "--grep": "journalctl", "--ignore-missing": "sha256sum",
	"--pause": "the program of docs/examples/ticker",
}

// otherVariables have our prefix, and are no settings: who reads each of them.
var otherVariables = map[string]string{
	"PARLEY_PORT_9090_TCP": "Kubernetes sets it", "PARLEY_SERVICE_HOST": "Kubernetes sets it", "PARLEY_TAG": "an example of a compose file's own",
	"PARLEY_JS":   "the examples for Node read it: where the client is",
	"PARLEY_ROLE": "the supervisor tells its children what they are",
}

// pageWords is what the program has, and what of the two lists above the pages needed.
//
// Owner: one test.
type pageWords struct {
	root  *cobra.Command
	flags map[string]bool // of any command
	used  map[string]bool

	invocations int // found so far
}

func newPageWords() *pageWords {
	w := &pageWords{root: newRoot(), flags: map[string]bool{"help": true}, used: map[string]bool{}}
	w.root.InitDefaultHelpCmd()
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		for _, set := range []*pflag.FlagSet{c.Flags(), c.PersistentFlags()} {
			set.VisitAll(func(f *pflag.Flag) { w.flags[f.Name] = true })
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(w.root)
	return w
}

// arguments are the words of a command, up to the end of the command in its line of the shell.
func arguments(line string) (list []string) {
	for _, word := range argument.FindAllString(line, -1) {
		if strings.ContainsAny(word[:1], "|;&<>)#") || word == "2>&1" || strings.HasPrefix(word, "2>") {
			break
		}
		end := strings.HasSuffix(word, ";") || strings.HasSuffix(word, ")")
		list = append(list, strings.Trim(strings.TrimRight(word, ");,"), `'"`))
		if end {
			break
		}
	}
	return list
}

// checkInvocation says what of `parley ...` the program does not take.
func (w *pageWords) checkInvocation(args []string) string {
	cmd, rest, err := w.root.Find(args)
	if err != nil {
		return err.Error()
	}
	for _, arg := range rest {
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, _ = strings.Cut(name, "=")
		switch {
		case isFlag && name != "" && name != "help" && cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil:
			return fmt.Sprintf("%s has no flag --%s", cmd.CommandPath(), name)
		case arg == "[flags]": // of a command's synopsis
		case !isFlag && cmd.HasSubCommands() && arg == rest[0]:
			return fmt.Sprintf("%s has no command %q", cmd.CommandPath(), arg)
		}
	}
	return ""
}

// check says what of the command line a page names that the program has not.
func (w *pageWords) check(page string) (wrong []string) {
	var inline, lines []string
	for _, block := range pageBlock.FindAllStringSubmatch(page, -1) {
		lines = append(lines, strings.Split(strings.ReplaceAll(block[1], "\\\n", " "), "\n")...)
	}
	rest := pageBlock.ReplaceAllString(page, "")
	for line := range strings.Lines(strings.ReplaceAll(rest, "\\\n", " ")) {
		if code, indented := strings.CutPrefix(line, "    "); indented {
			lines = append(lines, strings.TrimPrefix(strings.TrimSpace(code), "$ "))
		}
	}
	for _, span := range pageSpan.FindAllString(rest, -1) {
		inline = append(inline, strings.Join(strings.Fields(strings.Trim(span, "`")), " "))
	}
	complain := func(code, format string, args ...any) {
		wrong = append(wrong, fmt.Sprintf("`%s`: "+format, append([]any{code}, args...)...))
	}
	for _, code := range slices.Concat(inline, lines) {
		for _, part := range ofShell.Split(code, -1) {
			if m := invocation.FindStringSubmatch(strings.TrimSpace(part)); m != nil && !ofUnit.MatchString(part) {
				w.invocations++
				if fault := w.checkInvocation(arguments(m[1])); fault != "" {
					complain(code, "%s", fault)
				}
			}
		}
		for _, m := range variable.FindAllStringSubmatch(code, -1) {
			_, setting := findSetting(strings.ToLower(m[1]))
			if known := setting || slices.Contains(ignoredVariables, m[1]); !known && !w.excused(otherVariables, envPrefix+m[1]) {
				complain(code, "%s%s is no setting", envPrefix, m[1])
			}
		}
	}
	for _, span := range inline {
		for _, m := range longFlag.FindAllStringSubmatch(span, -1) {
			if !w.flags[m[1]] && !w.excused(otherFlags, "--"+m[1]) {
				complain(span, "no command has the flag --%s", m[1])
			}
		}
	}
	return wrong
}

func (w *pageWords) excused(list map[string]string, name string) bool {
	w.used[name] = true
	return list[name] != ""
}

// Each command, flag and variable that a page names is one that the program has.
func TestPages(t *testing.T) {
	w := newPageWords()
	for _, planted := range []string{"`parley vanish`", "`parley rooms vanish x`", "`parley serve --vanish 1`", "```sh\nbin/parley serve --port 1 \\\n  --vanish\n```",
		"```sh\nx | bin/parley publish --vanish\n```", "`--no-such-flag`", "`PARLEY_NO_SUCH=1`", "```sh\nPARLEY_NO_SUCH=1 bin/parley serve\n```", "`parley rooms --scopes x`",
		"\n    $ parley vanish\n", "\n    parley serve \\\n        --vanish\n"} {
		if len(w.check(planted)) == 0 {
			t.Errorf("%q: the planted fault goes unnoticed: the rule does not run", planted)
		}
	}
	for _, sound := range []string{"`parley rooms show lobby`", "`parley serve --port 1`", "`--heartbeat-interval`", "`PARLEY_PORT=1`", "`systemctl status parley`"} {
		if wrong := w.check(sound); len(wrong) > 0 {
			t.Errorf("%s: %q", sound, wrong)
		}
	}
	all := readPages(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, fault := range w.check(all[name]) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if len(all) < 40 || w.invocations < 100 {
		t.Errorf("%d pages with %d commands found: the search is wrong", len(all), w.invocations)
	}
	for _, list := range []map[string]string{otherFlags, otherVariables} {
		for name := range list {
			if !w.used[name] {
				t.Errorf("%s: no page names it any more: take it off its list", name)
			}
		}
	}
}
