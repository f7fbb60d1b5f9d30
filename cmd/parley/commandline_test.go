package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const commandLineIntro = `# Command line

Every command of ` + "`parley`, as `parley help COMMAND`" + ` shows it. Most work without any flag. A flag that stands for a
[setting](configuration.md) is not repeated here: commands that read the settings of a server take all of them, as flags, as variables and
from the file of ` + "`--config`" + `.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | it failed, or is not complete |
| 2 | a mistake in the command line, in a setting or in the input |
| 3 | no server answers |
| 4 | the server refuses the request, or the client |

` + "`parley completion bash`, `zsh` and `fish`" + ` print a script with which a shell completes commands and flags.

Generated: ` + "`go test ./cmd/parley -run Docs -update`" + `.
`

// commandLinePage is docs/commandline.md.
func commandLinePage() string {
	var b strings.Builder
	b.WriteString(commandLineIntro)
	for _, cmd := range commandsOf(newRoot()) {
		writeCommand(&b, cmd)
	}
	return b.String()
}

// commandsOf are the commands below one, as help lists them.
func commandsOf(cmd *cobra.Command) (list []*cobra.Command) {
	for _, below := range cmd.Commands() {
		if !below.Hidden && below.Name() != "help" {
			list = append(append(list, below), commandsOf(below)...)
		}
	}
	return list
}

func writeCommand(b *strings.Builder, cmd *cobra.Command) {
	cmd.InitDefaultHelpFlag()
	fmt.Fprintf(b, "\n## %s\n\n%s.\n\n```text\n%s\n", strings.TrimPrefix(cmd.CommandPath(), "parley "), cmd.Short, cmd.UseLine())
	if cmd.Long != "" {
		fmt.Fprintf(b, "\n%s\n", cmd.Long)
	}
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n%s\n", cmd.Example)
	}
	own, settings := ownFlags(cmd)
	if own.HasFlags() {
		fmt.Fprintf(b, "\nFlags:\n%s", own.FlagUsages())
	}
	b.WriteString("```\n")
	if settings {
		b.WriteString("\nIt takes every [setting](configuration.md) as a flag, too.\n")
	}
}

// ownFlags are the flags of a command that are no settings, but --help.
func ownFlags(cmd *cobra.Command) (own *pflag.FlagSet, settings bool) {
	own = pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		switch {
		case isSetting(f):
			settings = true
		case f.Name != "help":
			own.AddFlag(f)
		}
	})
	return own, settings
}

// docs/commandline.md agrees with the commands, and with what they print for help.
func TestCommandLineDocs(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "commandline.md")
	page := commandLinePage()
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || string(got) != page {
		t.Errorf("%s is not what the commands are (%v); run go test ./cmd/parley -run Docs -update", path, err)
	}
	all := commandsOf(newRoot())
	if len(all) < 25 {
		t.Errorf("only %d commands found: the search is wrong", len(all))
	}
	for _, cmd := range all {
		words := strings.Fields(cmd.CommandPath())[1:]
		code, help, stderr := parley(t, append([]string{"help"}, words...)...)
		if code != exitOK || stderr != "" {
			t.Errorf("help %s: %d %s", words, code, stderr)
		}
		own, _ := ownFlags(cmd)
		own.VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(help, "--"+f.Name) {
				t.Errorf("help %s does not show --%s", words, f.Name)
			}
		})
		if text, _, _ := strings.Cut(cmd.Long+cmd.Short, "\n"); !strings.Contains(help, text) {
			t.Errorf("help %s does not say %q", words, text)
		}
	}
}
