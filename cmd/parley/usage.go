package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group is a set of related settings, or of related commands. In a group settings keep the table's order: a help text may refer to the
// one before.
type group struct {
	title string
	keys  []string
}

// settings are those of the group.
func (g *group) settings() []setting {
	return slices.DeleteFunc(slices.Clone(table), func(s setting) bool { return !slices.Contains(g.keys, s.key) })
}

// isSetting reports whether a flag of a command is a setting, and not the command's own.
func isSetting(f *pflag.Flag) bool {
	_, is := f.Value.(*textFlag)
	return is
}

// groups are the sections of a command's help. A test wants each setting in one of them.
var groups = []group{
	{"Listening, proxies and the handshake", []string{"host", "port", "subprotocols", "trusted_proxies", "proxy_header", "proxy_protocol",
		"handshake_timeout", "handshake_bytes_max", "handshake_fields_max"}},
	{"Rooms and history", []string{"max_connections_per_room", "max_rooms_per_connection", "announce_members_max", "history", "receipt_interval",
		"show_users", "receipts"}},
	{"Sessions and heartbeats", []string{"heartbeat_interval", "heartbeat_timeout", "reconnection_ttl", "reconnection_max_attempts", "data_dir"}},
	{"Limits and compression", []string{"max_connections", "connections_per_address_max", "memory_bytes_max", "message_bytes_max",
		"message_fragments_max", "message_rate", "message_burst", "message_strikes", "backlog_soft_bytes", "backlog_hard_bytes", "backlog_grace",
		"compression", "compression_context_takeover"}},
	{"Security: pages, tokens and rights", []string{"origins", "auth", "jwt_secret_file", "jwt_keys_file", "jwt_jwks_url", "jwt_algorithms",
		"jwt_issuer", "jwt_audience", "jwt_claim", "jwt_leeway", "jwt_grace", "jwt_cookie", "jwt_query", "examples"}},
	{"HTTP API for backends", []string{"api_host", "api_port", "api_keys_file"}},
	{"Processes and the bus between them", []string{"processes", "loops", "sends", "bus_url", "bus_credentials", "bus_url_file"}},
	{"Log and operating", []string{"shutdown_timeout", "admin_host", "admin_port", "log_level", "log_format"}},
	{"For programs with package engine (parley itself has no such handlers)", []string{"attributes_bytes_max", "auth_timeout",
		"offload_workers", "offload_timeout"}},
}

// verbs are the groups of commands in the help of parley, in its order.
var verbs = []group{
	{"Run", []string{"serve", "echo"}},
	{"Look at a running server", []string{"connect", "status", "healthcheck", "rooms", "users", "conns", "history", "verify"}},
	{"Act on a running server", []string{"publish", "disconnect", "revoke", "drain"}},
	{"Settings, keys and tokens", []string{"check-config", "default-config", "config-doc", "key", "token"}},
}

// arrange puts each command of root into its group, and all others into the last one.
func arrange(root *cobra.Command) {
	const others = "Other commands"
	for _, g := range verbs {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
	}
	root.AddGroup(&cobra.Group{ID: others, Title: others + ":"})
	root.SetHelpCommandGroupID(others)
	for _, c := range root.Commands() {
		c.GroupID = others
		for _, g := range verbs {
			if slices.Contains(g.keys, c.Name()) {
				c.GroupID = g.title
			}
		}
	}
}

// helpColumns is the width of the help's lines.
const helpColumns = 120

// usage shows the flags of a command alone, and behind them the settings group by group.
func usage(cmd *cobra.Command) error {
	out := cmd.OutOrStderr()
	fmt.Fprintf(out, "Usage:\n  %s\n", cmd.UseLine())
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			fmt.Fprintf(out, "  %s\n", c.UseLine())
		}
	}
	if cmd.HasExample() {
		fmt.Fprintf(out, "\nExamples:\n%s\n", cmd.Example)
	}
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !isSetting(f) {
			own.AddFlag(f)
		}
	})
	fmt.Fprintf(out, "\nFlags:\n%s", own.FlagUsagesWrapped(helpColumns))
	for _, g := range groups {
		list := pflag.NewFlagSet("", pflag.ContinueOnError)
		list.SortFlags = false
		for _, s := range g.settings() {
			list.AddFlag(cmd.Flags().Lookup(s.flag()))
		}
		fmt.Fprintf(out, "\n%s:\n%s", g.title, list.FlagUsagesWrapped(helpColumns))
	}
	return nil
}
