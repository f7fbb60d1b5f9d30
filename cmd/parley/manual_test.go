package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manualPage is a page as `parley man` prints it.
func manualPage(t *testing.T, section string) string {
	t.Helper()
	code, out, stderr := parley(t, "man", section, "--date", "2027-01-31")
	if code != exitOK || stderr != "" {
		t.Fatal(code, stderr)
	}
	return out
}

// readable is a page as man(1) shows it, on one line with single spaces. A warning of the formatter fails the test.
func readable(t *testing.T, name, text string) string {
	t.Helper()
	program, err := exec.LookPath("man")
	if err != nil {
		if os.Getenv("REQUIRE_ALL_CLIENTS") == "1" {
			t.Fatal("man is missing, and REQUIRE_ALL_CLIENTS=1 requires it")
		}
		t.Skip("man is missing: the pages are not shown")
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var warnings strings.Builder
	cmd := exec.Command(program, "--warnings", "--local-file", "--encoding=UTF-8", path)
	cmd.Env = append(os.Environ(), "MANWIDTH=200", "LC_ALL=C.UTF-8", "MAN_KEEP_FORMATTING=", "MANPAGER=cat")
	cmd.Stderr = &warnings
	out, err := cmd.Output()
	if err != nil || warnings.Len() > 0 {
		t.Errorf("%s: %v: %s", name, err, warnings.String())
	}
	return strings.Join(strings.Fields(overstrike.ReplaceAllString(string(out), "")), " ")
}

var overstrike = regexp.MustCompile(".\b")

// parley(1) has every command and every flag of its own, and man(1) shows them as the help does.
func TestManualOfCommands(t *testing.T) {
	shown := readable(t, "parley.1", manualPage(t, "1"))
	n := 0
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		if c.Name() == "help" || c.HasParent() && c.Parent().Short == c.Short {
			return
		}
		if c.HasParent() && (!strings.Contains(shown, c.CommandPath()+" ") || !strings.Contains(shown, strings.Join(strings.Fields(c.Short), " ")) && c.Long == "") {
			t.Errorf("%s is not shown", c.CommandPath())
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if isSetting(f) || f.Name == "help" || f.Name == "config" {
				return
			}
			n++
			if _, text := pflag.UnquoteUsage(f); !strings.Contains(shown, "--"+f.Name+" ") || !strings.Contains(shown, strings.Join(strings.Fields(text), " ")) {
				t.Errorf("%s: --%s is not shown", c.CommandPath(), f.Name)
			}
		})
		for _, below := range c.Commands() {
			look(below)
		}
	}
	look(newRoot())
	if n < 30 || !strings.Contains(shown, "2027-01-31") || !strings.Contains(shown, "parley - a WebSocket room server") {
		t.Errorf("%d flags found: the search is wrong, or the head of the page\n%.300s", n, shown)
	}
}

// parley.yaml(5) has every setting, with its default and its meaning.
func TestManualOfSettings(t *testing.T) {
	shown := readable(t, "parley.yaml.5", manualPage(t, "5"))
	d := defaultSettings()
	for _, s := range table {
		if !strings.Contains(shown, strings.TrimSpace(s.key+": "+s.yaml(&d))+" "+strings.TrimSuffix(s.help, ".")+". Value: "+s.kind()) {
			t.Errorf("%s is not shown", s.key)
		}
	}
}

// A wrong page is a mistake of the command line.
func TestManualPages(t *testing.T) {
	for _, args := range [][]string{{"man"}, {"man", "2"}, {"man", "1", "5"}} {
		if code, _, stderr := parley(t, args...); code != exitUsage || !strings.Contains(stderr, "man takes one page") {
			t.Error(args, code, stderr)
		}
	}
}
