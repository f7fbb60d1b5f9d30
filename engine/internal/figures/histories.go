package figures

import (
	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/rooms"
)

func indexFigure(of func(rooms.HistoryCounts) uint64) func(*Source) uint64 {
	return func(s *Source) uint64 { return of(s.Rooms.Index.HistoryCounts()) }
}

// histories has a row for each figure of rooms with history.
var histories = []Figure[Stats]{
	{Key: "history_rooms", Metric: "history_rooms", Kind: Gauge, Help: "Rooms with history.",
		field: func(s *Stats) any { return &s.HistoryRooms },
		read:  indexFigure(func(c rooms.HistoryCounts) uint64 { return uint64(c.Rooms) })},
	{Key: "history_messages", Metric: "history_messages", Kind: Gauge, Help: "Messages that the rooms with history keep.",
		field: func(s *Stats) any { return &s.HistoryMessages },
		read:  indexFigure(func(c rooms.HistoryCounts) uint64 { return uint64(c.Messages) })},
	{Key: "history_bytes", Metric: "history_bytes", Kind: Gauge, Help: "Bytes of the messages that the rooms with history keep.",
		field: func(s *Stats) any { return &s.HistoryBytes },
		read:  indexFigure(func(c rooms.HistoryCounts) uint64 { return uint64(c.Bytes) })},
	{Key: "history_dropped", Metric: "history_dropped_total", Label: "cause", Help: "Messages that left a history, by the bound that they exceeded: messages, bytes or age; size: larger than the history itself; memory: for the budget of the process. Raise the bounds in history if clients miss messages.",
		field: func(s *Stats) any { return &s.HistoryDropped },
		table: func(s *Source) map[string]uint64 {
			table := map[string]uint64{}
			for i, n := range s.Rooms.Index.HistoryCounts().Dropped {
				table[rooms.DroppedCauses[i]] = n
			}
			return table
		}},
	{Key: "recoveries", Metric: "recoveries_total", Label: "outcome", Help: "Clients that named a position in a room with history, by what they got: complete; gap: the history no longer had all; epoch: the numbering was another one.",
		field: func(s *Stats) any { return &s.Recoveries },
		table: func(s *Source) map[string]uint64 {
			return map[string]uint64{"complete": total(s, fanout.CountRecovered), "gap": total(s, fanout.CountRecoveredGap), "epoch": total(s, fanout.CountRecoveredEpoch)}
		}},
	{Key: "replayed_messages", Metric: "replayed_messages_total", Help: "Messages that clients were given out of a history.",
		field: func(s *Stats) any { return &s.ReplayedMessages }, read: ofCount(fanout.CountReplayed)},
	{Key: "replayed_bytes", Metric: "replayed_bytes_total", Help: "Bytes of the messages that clients were given out of a history.",
		field: func(s *Stats) any { return &s.ReplayedBytes }, read: ofCount(fanout.CountReplayedBytes)},
	{Key: "history_gaps", Metric: "gaps_total", Label: "cause", Help: "Times that a client was told a gap in a room with history, by its cause. slow: the client read so slowly that the history had moved past it; expired: it came back too late; epoch: the numbering was another one; lost: the bus between the workers lost messages.",
		field: func(s *Stats) any { return &s.HistoryGaps },
		table: func(s *Source) map[string]uint64 {
			return map[string]uint64{"slow": total(s, fanout.CountGapsSlow), "expired": total(s, fanout.CountGapsExpired), "epoch": total(s, fanout.CountGapsEpoch),
				"lost": total(s, fanout.CountGapsLost)}
		}},
	{Key: "behind", Metric: "members_behind", Kind: Gauge, Help: "Members that read the history of their room at the moment: slow ones, and those that just came back.",
		field: func(s *Stats) any { return &s.Behind },
		read:  func(s *Source) uint64 { return uint64(s.Rooms.Behind.Load()) }},
	{Key: "behind_total", Metric: "members_fell_behind_total", Help: "Times that a member could not keep up with its room, and went on from the history.",
		field: func(s *Stats) any { return &s.BehindTotal }, read: ofCount(fanout.CountBehind)},
	{Key: "conflated", Metric: "conflated_total", Help: "Messages that a slow member did not get because a later one with the same key was there.",
		field: func(s *Stats) any { return &s.Conflated }, read: ofCount(fanout.CountConflated)},
	{Key: "receipts", Metric: "receipts_total", Label: "result", Help: "PINGs that ask a client for a receipt, in rooms with history, and their answers. sent: asked; proven: answered; other: a PONG of eight bytes that answers no such PING; false: a client lacked what its PONG had proven, because a proxy answers in its place.",
		field: func(s *Stats) any { return &s.Receipts },
		table: func(s *Source) map[string]uint64 {
			return map[string]uint64{"sent": total(s, fanout.CountReceiptsSent), "proven": total(s, fanout.CountReceiptsProven),
				"other": total(s, fanout.CountReceiptsOther), "false": total(s, fanout.CountReceiptsFalse)}
		}},
	{Key: "memory_parts", Metric: "memory_bytes", Label: "part", Kind: Gauge, Help: "Bytes that the server holds for others, by part: histories, sessions without a connection, mailboxes of the loops, incomplete messages (partial), unread frames (queues), and what the kernel may hold for connections that do not read (sockets).",
		field: func(s *Stats) any { return &s.MemoryParts },
		table: func(s *Source) map[string]uint64 {
			table := map[string]uint64{}
			for part, n := range s.Budget.Parts() {
				table[part] = uint64(max(n, 0))
			}
			return table
		}},
	{Key: "memory_limit", Metric: "memory_limit_bytes", Kind: Gauge, Help: "Bytes that memory_bytes may come to together; beyond it the server ends slow connections, forgets histories and sessions, and at last refuses newcomers. 0 for no limit. Set memory_bytes_max.",
		field: func(s *Stats) any { return &s.MemoryLimit },
		read:  func(s *Source) uint64 { return uint64(s.Budget.Limit) }},
	{Key: "relieved", Metric: "memory_freed_total", Label: "step", Help: "Times that memory_bytes reached memory_limit_bytes, by the step with which the server freed some: connections with the largest backlog were closed with 4003; unused_histories, histories, sessions: these were forgotten; newcomers: nothing else was left, and new connections get 503.",
		field: func(s *Stats) any { return &s.Relieved },
		table: func(s *Source) map[string]uint64 {
			table := map[string]uint64{}
			for i, n := range s.Budget.Relieved() {
				table[budget.Steps[i]] = n
			}
			return table
		}},
	{Key: "duplicates", Metric: "duplicates_total", Help: "Publishes with an idempotency key that the room had already seen: nothing was published.",
		field: func(s *Stats) any { return &s.Duplicates },
		read:  indexFigure(func(c rooms.HistoryCounts) uint64 { return c.Duplicates })},
}
