package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/manual"
	"github.com/parleyd/parley/engine/api"
)

// version and revision are set by the linker: make build sets the version, a release both.
var (
	version  = "devel"
	revision = ""
)

// commit is the revision that was built, "" if the build does not know it.
func commit() string {
	if revision != "" {
		return " commit " + revision[:min(len(revision), 12)]
	}
	build, _ := debug.ReadBuildInfo()
	if build == nil {
		return ""
	}
	for _, s := range build.Settings {
		if s.Key == "vcs.revision" {
			return " commit " + s.Value[:min(len(s.Value), 12)]
		}
	}
	return ""
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version, the commit and the version of Go",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintf(cmd.OutOrStdout(), "parley %s%s %s %s/%s\n", version, commit(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}

func newCheckConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check-config [FILE]",
		Short: "Check the settings and print where each comes from",
		Long: "Check the settings and print each, with where it comes from, as lines of a file for --config. A user or password\n" +
			"of bus_url is not shown.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("check-config takes one file, not %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if err := cmd.Flags().Set("config", args[0]); err != nil {
					return err
				}
			}
			s, sources, err := load(cmd)
			if err != nil {
				return err
			}
			s.settle()
			for _, note := range s.notes {
				fmt.Fprintln(cmd.ErrOrStderr(), "parley: warning:", note)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, x := range table {
				fmt.Fprintf(w, "%s:\t%s\t# %s\n", x.key, x.yaml(s), sources[x.key])
			}
			return w.Flush()
		},
	}
	addFlags(cmd)
	return cmd
}

// newManual prints the manual pages. They are made from the commands, the flags and the table of settings, as the help is.
func newManual() *cobra.Command {
	book := manual.Book{Version: version}
	cmd := &cobra.Command{
		Use:   "man 1|5",
		Short: "Print a manual page: 1 is parley(1), the commands; 5 is parley.yaml(5), the settings",
		Example: "  parley man 1 > parley.1 && man ./parley.1\n" +
			"  parley man 5 > /usr/local/share/man/man5/parley.yaml.5",
		ValidArgs: []string{"1", "5"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "1" && args[0] != "5" {
				return usageError{fmt.Errorf("man takes one page: 1 for parley(1), 5 for parley.yaml(5)")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			text := book.Settings(settingsInGroups(), []manual.Entry{
				{Term: "keys:", Text: "Keys of the HTTP API, as parley key create prints them. The fields of an entry: " + strings.Join(fieldsOf(&api.KeyEntry{}), ", ") + "."},
				{Term: "rooms:", Text: "Rules that say which clients may do what in which rooms. The first rule that matches counts. The fields of an entry: " +
					strings.Join(fieldsOf(&ruleText{}), ", ") + "."},
			})
			if args[0] == "1" {
				text = book.Commands(commandsForManual(cmd.Root()))
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), text)
			return err
		},
	}
	cmd.Flags().StringVar(&book.Date, "date", "", "date of the page, like 2027-01-31")
	return cmd
}

func commandsForManual(root *cobra.Command) manual.Commands {
	exit := func(code int, text string) manual.Entry { return manual.Entry{Term: fmt.Sprint(code), Text: text} }
	return manual.Commands{
		Root:    root,
		Setting: isSetting,
		Exits: []manual.Entry{exit(exitOK, "The command did its work, or the server is well."), exit(exitFailed, "It failed, or the server is not well."),
			exit(exitUsage, "There is a mistake in the command line, in the settings, or in a file that they name."),
			exit(exitUnreachable, "No server answers."), exit(exitRefused, "The server refuses the request.")},
		Environment: []manual.Entry{{Term: envPrefix + "CONFIG", Text: "The file of settings, for commands that take --config."},
			{Term: envPrefix + "PORT and others", Text: "Each setting is a variable, too: see parley.yaml(5)."},
			{Term: keyVariable, Text: "A key of the HTTP API, for the server and for commands that speak to it."},
			{Term: envPrefix + "URL", Text: "The address of the HTTP API, for commands that speak to it."}},
	}
}

// settingsInGroups are the settings with their defaults, as the help groups them.
func settingsInGroups() (list []manual.Group) {
	d := defaultSettings()
	for _, g := range groups {
		one := manual.Group{Title: g.title}
		for _, s := range g.settings() {
			one.Entries = append(one.Entries, manual.Entry{Term: s.key + ": " + s.yaml(&d), Text: strings.TrimSuffix(s.help, ".") + ".\nValue: " + s.kind() + "."})
		}
		list = append(list, one)
	}
	return list
}
