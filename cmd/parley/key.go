package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
	"github.com/parleyd/parley/engine/api"
)

// newKey is the tool for the keys of the HTTP API. The server stores hashes only, so that a key is printed once.
func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make and list keys of the HTTP API",
		Args:  knownVerb,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyCreate(), newKeyHash(), newKeyList())
	return cmd
}

// grant are the flags that say what a key may do.
type grant struct {
	scopes, rooms []string
	until         string
}

func (g *grant) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&g.scopes, "scopes", nil, "the key may do this: publish, read, manage, tokens, hooks, operate or all")
	cmd.Flags().StringSliceVar(&g.rooms, "rooms", nil, "the key works in rooms that match these patterns ('shop:**'); by default in every room")
	cmd.Flags().StringVar(&g.until, "until", "", "the server refuses the key from this date on: 2027-06-01")
}

// apply adds the grant to an entry, and checks it as the server does.
func (g *grant) apply(entry *api.KeyEntry) error {
	entry.Scopes, entry.Rooms, entry.Until = g.scopes, g.rooms, g.until
	if len(g.scopes) == 0 {
		return usageError{errors.New("--scopes is missing: name what the key may do (publish, read, manage, tokens, hooks, operate or all)")}
	}
	var wrong *api.EntryError
	if _, err := api.CompileKeys([]api.KeyEntry{*entry}); errors.As(err, &wrong) {
		return usageError{fmt.Errorf("--%s: %s", wrong.Field, wrong.Why)}
	} else if err != nil {
		return err
	}
	return nil
}

func newKeyCreate() *cobra.Command {
	var id string
	var may grant
	cmd := &cobra.Command{
		Use:   "create --id ID --scopes SCOPE,...",
		Short: "Make a key and print it once, with its entry for api_keys_file",
		Long: "Make a key, and print it once on the first line. The entry below it goes into the file of api_keys_file, or into the\n" +
			"list `keys:` of the configuration file; it holds no secret.",
		Example: "  parley key create --id shop --scopes publish,read --rooms 'shop:**'",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, entry, err := api.CreateKey(id)
			if err != nil {
				return usageError{err}
			}
			if err := may.apply(&entry); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n%s", text, entryText(entry))
			return nil
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "the key has this name, which the log shows; it is a part of the key")
	may.flags(cmd)
	return cmd
}

func newKeyHash() *cobra.Command {
	var may grant
	cmd := &cobra.Command{
		Use:   "hash --scopes SCOPE,... < FILE",
		Short: "Print the entry of a key that is read from standard input",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
			if err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("read a key: %w", err)
			}
			entry, err := api.EntryOf(strings.TrimSpace(line))
			if err != nil {
				return usageError{err}
			}
			if err := may.apply(&entry); err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), entryText(entry))
			return nil
		},
	}
	may.flags(cmd)
	return cmd
}

// entryText is an entry as a file of keys has it.
func entryText(e api.KeyEntry) string {
	text := fmt.Sprintf("keys:\n  - {id: %s, sha256: %s, scopes: [%s]", quoted(e.ID), e.SHA256, strings.Join(e.Scopes, ", "))
	if len(e.Rooms) > 0 {
		rooms := make([]string, len(e.Rooms))
		for i, r := range e.Rooms {
			rooms[i] = quoted(r)
		}
		text += ", rooms: [" + strings.Join(rooms, ", ") + "]"
	}
	if e.Until != "" {
		text += ", until: " + quoted(e.Until)
	}
	return text + "}\n"
}

func newKeyList() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys of the configuration, without secrets",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := load(cmd)
			if err != nil {
				return err
			}
			if asJSON {
				return writeKeys(cmd.OutOrStdout(), s.Keys)
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "ID\tSCOPES\tROOMS\tUNTIL")
			for _, k := range s.Keys {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.ID, strings.Join(k.Scopes, ","), show.OrDash(len(k.Rooms), strings.Join(k.Rooms, ",")), show.OrDash(len(k.Until), k.Until))
			}
			return w.Flush()
		},
	}
	addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// writeKeys writes a line of JSON for each key, without its hash.
func writeKeys(to io.Writer, keys []api.KeyEntry) error {
	lines := json.NewEncoder(to)
	for _, k := range keys {
		row := map[string]any{"id": k.ID, "scopes": k.Scopes}
		if len(k.Rooms) > 0 {
			row["rooms"] = k.Rooms
		}
		if k.Until != "" {
			row["until"] = k.Until
		}
		if err := lines.Encode(row); err != nil {
			return err
		}
	}
	return nil
}
