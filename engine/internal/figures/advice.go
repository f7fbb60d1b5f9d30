package figures

// Advice is when an operator should act on a figure, and what to do then.
//
// Owner: immutable.
type Advice struct{ Metric, When, Do string }

// Advised has the metrics to act on, the most urgent first. All other figures explain these, or inform.
var Advised = []Advice{
	{"worker_up", "0 for more than five seconds", "Read the log for the reason; parley status shows how the process ended last."},
	{"bus_up", "0 for more than five seconds", "Workers do not reach each other. Look at the log of the bus process, or at your NATS server."},
	{"ledger_up", "0 for more than five seconds", "Sessions and seats cannot be stored. Look at the disk of data_dir, and at the log for the reason."},
	{"bus_lost_total", "grows", "Clients missed messages of other workers. Look for workers without CPU (stalls_total), and for interruptions of the bus."},
	{"bus_overrun_total", "grows", "The bus was away longer than the 16 MiB that a worker keeps for others. Find out why it was away."},
	{"worker_restarts_total", "grows", "A process ended or was frozen. The log says why; look for the kernel's out-of-memory killer."},
	{"panics_total", "grows", "The log has the stack. Correct the handler; report a panic of the server's own code."},
	{"memory_freed_total", "grows", "Find the largest part in memory_bytes. Lower its bound (history, backlog, attributes), or raise memory_bytes_max."},
	{"order_memory_freed_total", "grows", "The bus process forgets histories. Lower the bounds of history, or raise memory_bytes_max."},
	{"connections", "above 80 % of connections_max", "Raise max_connections and the descriptor limit, or add workers."},
	{"connections_over_limit_total", "grows", "Newcomers get 503. Raise max_connections and the descriptor limit, or add workers."},
	{"accept_errors_total", "grows fast", "The process or the machine has no descriptor left: raise LimitNOFILE or fs.file-max. A few are clients that hung up."},
	{"keys_age_seconds", "above two hours", "Let the server reach jwt_jwks_url: after a day newcomers get 503."},
	{"slow_handlers_total", "grows", "A handler holds its loop. The log names it; register it with engine.Offload()."},
	{"stalls_total", "grows", "The process gets no CPU, or was stopped. Give it more, or find the program that takes it."},
	{"loop_queue_length", "stays above 1,000", "The loop is behind. Look at slow_handlers_total and stalls_total; give the server more cores."},
	{"sends_overloaded_total", "grows", "A loop is behind, and messages are refused. Do as for loop_queue_length."},
	{"handler_timeouts_total", "grows", "Your connect, auth or offloaded handlers are too slow. Make them faster, or raise offload_workers."},
	{"session_save_seconds", "above 0.05", "Joins and leaves wait for the store. Give the bus a faster disk and more CPU."},
	{"session_unsaved_seconds", "above 2", "A killed worker would lose what its clients did in that time. Do as for session_save_seconds."},
	{"sessions_evicted_total", "grows", "Clients that come back lose their sessions. Give the server more memory, shorten reconnection_ttl, or keep less in attributes."},
	{"sessions_too_large_total", "grows", "Keep less in the attributes and user data of a session, or join fewer rooms."},
	{"bus_too_large_total", "grows", "A call names too many rooms or connections: name fewer in each call."},
	{"bus_entries_skipped_total", "grows", "Workers of two versions share a bus. Bring all of them to one version."},
	{"order_unanswered_total", "grows", "The sequencer is late. Give the bus process more CPU; publishers repeat with their idempotency_key."},
	{"order_rebuilds_total", "epochs new grows", "The bus process and a worker failed together, and clients were told a gap. Find out why they ended."},
	{"gaps_total", "grows", "Clients missed messages of a history. history_dropped_total names the bound to raise."},
	{"members_behind", "stays above 0", "Some clients cannot keep up. Publish less, or let the room conflate."},
	{"connections_ended_total", "the cause slow_consumer grows", "Clients read too slowly: smaller messages, fewer rooms, or a history that conflates."},
	{"origins_refused_total", "grows after a change", "A page of yours is missing in origins. Otherwise pages of strangers try."},
	{"handshakes_refused_total", "grows", "Ask the server with curl -i: the text of its answer says why (docs/troubleshooting.md)."},
	{"forwarded_headers_ignored_total", "grows", "The proxy passes on fields of its clients. Set proxy_header, or let the proxy overwrite them."},
	{"proxy_headers_refused_total", "grows", "A peer without a PROXY protocol header connects. Send monitors to the admin listener; check trusted_proxies."},
	{"connections_over_address_limit_total", "grows", "One address has very many clients. If it is your proxy's, name it in trusted_proxies."},
	{"messages_rate_limited_total", "grows", "A client sends too much. parley conns shows who; raise message_rate if it is right."},
	{"session_resumes_refused_total", "grows after a restart", "Sessions were lost: set data_dir."},
	{"auth", "0 where strangers reach the port", "Set auth and origins: every client may connect and join."},
}
