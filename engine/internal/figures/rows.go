package figures

import (
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
)

// ofCount reads a count of all loops and of the server.
func ofCount(c turn.CountKind) func(*Source) uint64 {
	return func(s *Source) uint64 { return total(s, c) }
}

// Server has a row for each figure of [Stats].
var Server = slices.Concat(general, histories, ordering)

var general = []Figure[Stats]{
	{Key: "connections", Metric: "connections", Kind: Gauge, Help: "Open WebSocket connections.",
		field: func(s *Stats) any { return &s.Connections },
		read:  func(s *Source) uint64 { return uint64(s.Rooms.Open.Load()) }},
	{Key: "rooms", Metric: "rooms", Kind: Gauge, Help: "Rooms that exist.",
		field: func(s *Stats) any { return &s.Rooms },
		read:  func(s *Source) uint64 { return uint64(s.Rooms.Index.Len()) }},
	{Key: "rooms_counted", Kind: Gauge, Help: "Rooms that this worker counts: the sum over workers has each room once.",
		field: func(s *Stats) any { return &s.RoomsCounted },
		read:  func(s *Source) uint64 { return uint64(s.Rooms.Index.Counted(s.Rooms.Link.Lowest())) }},
	{Key: "messages_sent", Metric: "messages_sent_total", Help: "Messages sent to clients; a broadcast counts once for each recipient.",
		field: func(s *Stats) any { return &s.MessagesSent }, read: ofCount(turn.CountSent)},
	{Key: "messages_received", Metric: "messages_received_total", Help: "Messages received from clients.",
		field: func(s *Stats) any { return &s.MessagesReceived }, read: ofCount(turn.CountReceived)},
	{Key: "uptime", Metric: "uptime_seconds", Kind: Highest, Help: "Seconds since the server's start.",
		field: func(s *Stats) any { return &s.Uptime },
		read:  func(s *Source) uint64 { return uint64(s.Uptime().Seconds()) }},
	{Key: "memory_usage", Kind: Gauge, Help: "Bytes of memory that the process has from the system.",
		field: func(s *Stats) any { return &s.MemoryUsage },
		read:  func(*Source) uint64 { return memoryUsage() }},
	{Key: "sessions", Metric: "sessions", Kind: Gauge, Help: "Sessions whose connection has ended and that can still be resumed.",
		field: func(s *Stats) any { return &s.Sessions },
		read:  func(s *Source) uint64 { return uint64(s.Sessions.Memory.Parked()) }},
	{Key: "max_connections", Metric: "connections_max", Kind: Gauge, Help: "Most connections that the server accepts; further ones are answered with 503. Raise max_connections or the descriptor limit for more.",
		field: func(s *Stats) any { return &s.MaxConnections },
		read:  func(s *Source) uint64 { return s.ConnectionsMax() }},
	{Key: "bytes_received", Metric: "received_bytes_total", Help: "Bytes received from clients.",
		field: func(s *Stats) any { return &s.BytesReceived }, read: ofCount(turn.CountBytesIn)},
	{Key: "bytes_sent", Metric: "sent_bytes_total", Help: "Bytes sent to clients.",
		field: func(s *Stats) any { return &s.BytesSent }, read: ofCount(turn.CountBytesOut)},
	{Key: "writes", Metric: "writes_total", Help: "Writes to clients' sockets. With io_uring many of them are one system call (parley_send_rings).",
		field: func(s *Stats) any { return &s.Writes }, read: ofCount(turn.CountWrites)},
	{Key: "send_rings", Metric: "send_rings", Kind: Gauge, Help: "Event loops that hand the kernel writes to several connections in one system call, by io_uring. Fewer than loops: the setting sends is plain, or the kernel refuses io_uring, and the log says why.",
		field: func(s *Stats) any { return &s.SendRings },
		read: func(s *Source) (n uint64) {
			for _, l := range s.Rooms.Loops {
				if l.Together.Load() {
					n++
				}
			}
			return n
		}},
	{Key: "writes_blocked", Metric: "writes_blocked_total", Help: "Writes of which the kernel took only a part, because the client reads more slowly than the server sends.",
		field: func(s *Stats) any { return &s.WritesBlocked }, read: ofCount(turn.CountBlocked)},
	{Key: "pings", Metric: "pings_sent_total", Help: "Pings sent to clients that were silent for heartbeat_interval.",
		field: func(s *Stats) any { return &s.Pings }, read: ofCount(turn.CountPings)},
	{Key: "accepted", Metric: "connections_accepted_total", Help: "Connections whose WebSocket handshake has succeeded.",
		field: func(s *Stats) any { return &s.Accepted }, read: ofCount(turn.CountAccepted)},
	{Key: "refused", Metric: "handshakes_refused_total", Help: "Handshakes answered with an HTTP error, for any reason.",
		field: func(s *Stats) any { return &s.Refused }, read: ofCount(turn.CountRefused)},
	{Key: "accept_errors", Metric: "accept_errors_total", Help: "Connections that the server could not accept: the peer had reset them, or the process had no descriptor left.",
		field: func(s *Stats) any { return &s.AcceptErrors }, read: ofCount(turn.CountAcceptErrors)},
	{Key: "full", Metric: "connections_over_limit_total", Help: "Connections refused because max_connections were open. Raise max_connections, or add workers.",
		field: func(s *Stats) any { return &s.Full }, read: ofCount(turn.CountFull)},
	{Key: "crowded", Metric: "connections_over_address_limit_total", Help: "Connections refused because their address had connections_per_address_max open. If clients come through a proxy, name it in trusted_proxies.",
		field: func(s *Stats) any { return &s.Crowded }, read: ofCount(turn.CountCrowded)},
	{Key: "rate_exceeded", Metric: "messages_rate_limited_total", Help: "Messages refused because their connection sent more than message_rate allows. Connections closed for it are in connections_ended_total with the cause rate_limited.",
		field: func(s *Stats) any { return &s.RateExceeded }, read: ofCount(turn.CountRateExceeded)},
	{Key: "errors", Metric: "error_replies_total", Help: "Messages from clients that were answered with an error.",
		field: func(s *Stats) any { return &s.Errors }, read: ofCount(pending.CountErrors)},
	{Key: "overloaded", Metric: "sends_overloaded_total", Help: "Broadcasts and direct messages refused with the code overloaded because an event loop was behind.",
		field: func(s *Stats) any { return &s.Overloaded }, read: ofCount(fanout.CountOverloaded)},
	{Key: "panics", Metric: "panics_total", Help: "Panics in code of the application, such as handlers, or of the server; each ends one connection at most, and the log has its stack.",
		field: func(s *Stats) any { return &s.Panics }, read: ofCount(CountPanics)},
	{Key: "missed", Help: "Times that this worker lost messages of another worker.",
		field: func(s *Stats) any { return &s.Missed }, read: ofCount(fanout.CountMissed)},
	{Key: "sessions_evicted", Metric: "sessions_evicted_total", Help: "Sessions that can no longer be resumed because later ones needed their memory; the oldest go first.",
		field: func(s *Stats) any { return &s.SessionsEvicted },
		read:  func(s *Source) uint64 { return s.Sessions.Memory.Evicted() }},
	{Key: "untold", Metric: "bus_too_large_total", Help: "Messages that were too large for the bus between the workers: clients of other workers did not get them. Name fewer rooms or connections in one call.",
		field: func(s *Stats) any { return &s.Untold }, read: ofCount(fanout.CountUntold)},
	{Key: "entries_skipped", Metric: "bus_entries_skipped_total", Help: "Messages between workers that this worker skipped, all or in part, because the sender runs a newer version of the program.",
		field: func(s *Stats) any { return &s.EntriesSkipped }, read: ofCount(CountSkipped)},
	{Key: "sessions_too_large", Metric: "sessions_too_large_total", Help: "Attempts to store a session of more than 512 KiB; its last stored state stays. Keep less in the session's attributes.",
		field: func(s *Stats) any { return &s.SessionsTooLarge }, read: ofCount(session.CountSessionsTooLarge)},
	{Key: "slow_handlers", Metric: "slow_handlers_total", Help: "Calls of handlers that held their event loop for more than 50 ms. Register these handlers with engine.Offload().",
		field: func(s *Stats) any { return &s.SlowHandlers }, read: ofCount(turn.CountSlowHandlers)},
	{Key: "stalls", Metric: "stalls_total", Help: "Times that an event loop stood still for a while: the process was stopped, had no CPU, or a handler held the loop. That time counts against no client.",
		field: func(s *Stats) any { return &s.Stalls }, read: ofCount(turn.CountStalls)},
	{Key: "overdue", Metric: "handler_timeouts_total", Help: "Calls of handlers of the application (connect, auth, offloaded) that did not answer within offload_timeout: their clients got unavailable, 503 or 1013.",
		field: func(s *Stats) any { return &s.Overdue }, read: ofCount(pending.CountOverdue)},
	{Key: "resumed", Metric: "sessions_resumed_total", Help: "Sessions that a client has resumed with its token.",
		field: func(s *Stats) any { return &s.Resumed }, read: ofCount(session.CountResumed)},
	{Key: "resumes_refused", Metric: "session_resumes_refused_total", Help: "Requests to resume a session that were refused: the token was unknown, used, too old, or of another user.",
		field: func(s *Stats) any { return &s.ResumesRefused }, read: ofCount(session.CountResumesRefused)},
	{Key: "origins_refused", Metric: "origins_refused_total", Help: "Handshakes refused because the setting origins does not list the origin of the page.",
		field: func(s *Stats) any { return &s.OriginsRefused }, read: ofCount(CountOriginsRefused)},
	{Key: "prefaces_refused", Metric: "proxy_headers_refused_total", Help: "Connections closed because they did not begin with a valid PROXY protocol header from a trusted proxy.",
		field: func(s *Stats) any { return &s.PrefacesRefused }, read: ofCount(turn.CountPrefacesRefused)},
	{Key: "forwarded_ignored", Metric: "forwarded_headers_ignored_total", Help: "Header fields of trusted proxies, like X-Forwarded-For, that were malformed or contradicted each other.",
		field: func(s *Stats) any { return &s.ForwardedIgnored }, read: ofCount(turn.CountForwardedIgnored)},
	{Key: "ended", Metric: "connections_ended_total", Label: "cause", Help: "Connections that have ended, by the cause of their end.",
		field: func(s *Stats) any { return &s.Ended }},
	{Key: "auth", Metric: "auth", Kind: Highest, Help: "0: every client may connect and join, auth is off. 1: clients may authenticate. 2: they must.",
		field: func(s *Stats) any { return &s.Auth },
		read:  func(s *Source) uint64 { return s.Auth() }},
	{Key: "keys_age", Metric: "keys_age_seconds", Kind: Highest, Help: "Seconds since the keys at jwt_jwks_url were last read without a fault, or since the server's start if they never were; 0 without jwt_jwks_url. After a day the server uses them no more, and newcomers get 503.",
		field: func(s *Stats) any { return &s.KeysAge },
		read: func(s *Source) uint64 {
			if s.Keys.Age == nil {
				return 0
			}
			return uint64(s.Keys.Age().Seconds())
		}},
	{Key: "session_saves", Metric: "session_save_seconds", Kind: Histogram, Help: "Seconds until a change of a session was stored, where sessions outlive their worker.",
		field:  func(s *Stats) any { return &s.SessionSaves },
		bounds: session.SaveSecondsBounds[:], micros: func(s *Stats) uint64 { return s.SessionSaveMicros }},
	{Key: "session_save_micros", Help: "The sum of the durations in session_saves, in microseconds.",
		field: func(s *Stats) any { return &s.SessionSaveMicros },
		read:  func(s *Source) uint64 { _, micros := s.Sessions.SaveCounts(); return micros }},
	{Key: "session_unsaved_millis", Metric: "session_unsaved_seconds", Per: 1000, Kind: Highest, Help: "Age in seconds of the oldest change of a session that is not stored yet; 0 where all are stored.",
		field: func(s *Stats) any { return &s.SessionUnsavedMillis },
		read:  func(s *Source) uint64 { return s.Sessions.UnsavedMillis() }},
}

// Loop has a row for each figure of [LoopStats]. Its metrics have the labels worker and loop.
var Loop = []Figure[LoopStats]{
	{Key: "connections", Metric: "loop_connections", Kind: Gauge, Help: "Sockets of the event loop, including those in the handshake and those that are closing.",
		field: func(l *LoopStats) any { return &l.Connections }},
	{Key: "letters", Metric: "loop_queue_length", Kind: Gauge, Help: "Internal messages that wait for the event loop.",
		field: func(l *LoopStats) any { return &l.Letters }},
	{Key: "received", Metric: "loop_messages_received_total", Help: "Messages that the event loop has received from clients.",
		field: func(l *LoopStats) any { return &l.Received }},
	{Key: "sent", Metric: "loop_messages_sent_total", Help: "Messages that the event loop has sent to clients.",
		field: func(l *LoopStats) any { return &l.Sent }},
}

// Worker has a row for each figure of [WorkerStats], [BusStats], [ProcessStats] and [SequencerStats]. Its metrics have the label
// worker.
var Worker = append([]Figure[WorkerStats]{
	{Key: "state", Metric: "worker_up", Kind: Gauge, Help: "1 while the process does its work, 0 while it starts or ends.",
		field: func(w *WorkerStats) any { return w.State == "ready" }},
	{Key: "restarts", Metric: "worker_restarts_total", Help: "Times that the process was started again after its end. The log says why it ended.",
		field: func(w *WorkerStats) any { return &w.Restarts }},
	{Key: "started_at", Metric: "worker_start_time_seconds", Kind: Gauge, Help: "When the process was started, in seconds since 1970.",
		field: func(w *WorkerStats) any { return &w.StartedAt }},
	{Key: "connections", Metric: "worker_connections", Kind: Gauge, Help: "Open connections of the worker.",
		field: serving(func(w *WorkerStats) any { return &w.Connections })},
	{Key: "rooms", Kind: Gauge, Help: "Rooms with members on the worker.",
		field: serving(func(w *WorkerStats) any { return &w.Rooms })},
	{Key: "process.goroutines", Metric: "worker_goroutines", Kind: Gauge, Help: "Goroutines of the process.",
		field: ofProcess(func(p *ProcessStats) any { return &p.Goroutines })},
	{Key: "process.heap_bytes", Metric: "worker_heap_bytes", Kind: Gauge, Help: "Bytes of objects on the process's Go heap, including those that the collector has not freed yet.",
		field: ofProcess(func(p *ProcessStats) any { return &p.HeapBytes })},
	{Key: "bus.up", Metric: "bus_up", Kind: Gauge, Help: "1 while the worker is connected to the bus, over which it reaches the other workers.",
		field: ofBus(func(b *BusStats) any { return b.Up })},
	{Key: "bus.unkept", Metric: "ledger_up", Kind: Gauge, Help: "1 while the worker can keep sessions and take seats in limited rooms: it is connected to the bus, and the bus has what it must keep.",
		field: ofBus(func(b *BusStats) any { return b.Up && b.Unkept == "" })},
	{Key: "bus.entries_out", Metric: "bus_entries_sent_total", Help: "Messages, joins, counts and questions that the worker has sent to the other workers.",
		field: ofBus(func(b *BusStats) any { return &b.EntriesOut })},
	{Key: "bus.entries_in", Metric: "bus_entries_received_total", Help: "Messages, joins, counts and questions that the worker has received from the other workers.",
		field: ofBus(func(b *BusStats) any { return &b.EntriesIn })},
	{Key: "bus.bytes_out", Metric: "bus_sent_bytes_total", Help: "Bytes that the worker has sent to the other workers.",
		field: ofBus(func(b *BusStats) any { return &b.BytesOut })},
	{Key: "bus.bytes_in", Metric: "bus_received_bytes_total", Help: "Bytes that the worker has received from the other workers.",
		field: ofBus(func(b *BusStats) any { return &b.BytesIn })},
	{Key: "bus.gaps", Metric: "bus_gaps_total", Help: "Times that the worker missed batches of another worker and asked for them again.",
		field: ofBus(func(b *BusStats) any { return &b.Gaps })},
	{Key: "bus.repaired", Metric: "bus_repaired_total", Help: "Missing batches that arrived after the worker had asked for them again.",
		field: ofBus(func(b *BusStats) any { return &b.Repaired })},
	{Key: "bus.lost", Metric: "bus_lost_total", Help: "Missing batches that no worker had any more: messages are lost, and an event and the log say whose.",
		field: ofBus(func(b *BusStats) any { return &b.Lost })},
	{Key: "bus.overrun", Metric: "bus_overrun_total", Help: "Batches of this worker that it dropped because the bus was away for too long: the other workers did not get them.",
		field: ofBus(func(b *BusStats) any { return &b.Overrun })},
	{Key: "bus.reconnects", Metric: "bus_reconnects_total", Help: "Times that the worker's connection to the bus came back.",
		field: ofBus(func(b *BusStats) any { return &b.Reconnects })},
	{Key: "bus.unsent_bytes", Metric: "bus_unsent_bytes", Kind: Gauge, Help: "Bytes that wait until the bus is reached again.",
		field: ofBus(func(b *BusStats) any { return &b.Unsent })},
}, sequencer...)

// serving leaves the bus's process out.
func serving(of func(*WorkerStats) any) func(*WorkerStats) any {
	return func(w *WorkerStats) any {
		if w.Instance == 0 {
			return nil
		}
		return of(w)
	}
}

func ofProcess(of func(*ProcessStats) any) func(*WorkerStats) any {
	return func(w *WorkerStats) any {
		if w.Process == nil {
			return nil
		}
		return of(w.Process)
	}
}

func ofBus(of func(*BusStats) any) func(*WorkerStats) any {
	return func(w *WorkerStats) any {
		if w.Bus == nil {
			return nil
		}
		return of(w.Bus)
	}
}
