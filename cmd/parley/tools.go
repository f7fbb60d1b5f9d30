package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

// commit is the revision that was built, "" if the build does not know it.
func commit() string {
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
		Short: "Print the version",
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
