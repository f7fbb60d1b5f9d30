package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// group is a set of related settings. In a group they keep the table's order: a help text may refer to the one before.
type group struct {
	title string
	keys  []string
}

// groups are the sections of a command's help. A test wants each setting in one of them.
var groups = []group{
	{"Addresses and ports", []string{"host", "port", "admin_host", "admin_port", "api_host", "api_port", "api_keys_file"}},
	{"Processes, bus and storage of sessions", []string{"processes", "loops", "data_dir", "bus_url", "bus_credentials", "bus_url_file"}},
	{"Origins, proxies and the handshake", []string{"origins", "subprotocols", "trusted_proxies", "proxy_header", "proxy_protocol",
		"handshake_timeout", "handshake_bytes_max", "handshake_fields_max"}},
	{"Tokens of clients", []string{"auth", "jwt_secret_file", "jwt_keys_file", "jwt_jwks_url", "jwt_algorithms", "jwt_issuer", "jwt_audience",
		"jwt_claim", "jwt_leeway", "jwt_grace", "jwt_cookie", "jwt_query", "examples", "show_users"}},
	{"Heartbeats and sessions", []string{"heartbeat_interval", "heartbeat_timeout", "reconnection_ttl", "reconnection_max_attempts"}},
	{"Connections and rooms", []string{"max_connections", "connections_per_address_max", "max_connections_per_room", "max_rooms_per_connection", "announce_members_max", "history",
		"receipt_interval", "memory_bytes_max", "receipts"}},
	{"Messages", []string{"message_bytes_max", "message_fragments_max", "message_rate", "message_burst", "message_strikes", "backlog_soft_bytes", "backlog_hard_bytes", "backlog_grace",
		"compression", "compression_context_takeover"}},
	{"Shutdown and log", []string{"shutdown_timeout", "log_level", "log_format"}},
	{"For programs with package engine (parley itself has no such handlers)", []string{"attributes_bytes_max", "auth_timeout",
		"offload_workers", "offload_timeout"}},
}

// usage shows the settings of a command group by group, and its other flags behind them.
func usage(cmd *cobra.Command) error {
	out := cmd.OutOrStderr()
	fmt.Fprintf(out, "Usage:\n  %s\n", cmd.UseLine())
	for _, g := range groups {
		list := pflag.NewFlagSet("", pflag.ContinueOnError)
		list.SortFlags = false
		for _, s := range table {
			if slices.Contains(g.keys, s.key) {
				list.AddFlag(cmd.Flags().Lookup(s.flag()))
			}
		}
		fmt.Fprintf(out, "\n%s:\n%s", g.title, list.FlagUsages())
	}
	others := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, setting := f.Value.(*textFlag); !setting {
			others.AddFlag(f)
		}
	})
	fmt.Fprintf(out, "\nOther flags:\n%s", others.FlagUsages())
	return nil
}
