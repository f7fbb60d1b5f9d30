package figures

// SequencerStats are the figures of the sequencer, which gives the messages of rooms with history one order over all workers. It
// is a part of the bus process; the counts begin with its start.
//
// Owner: the caller.
type SequencerStats struct {
	Term           uint64            `json:"term"`          // grows with each start of the bus process
	Followers      int               `json:"followers"`     // processes that publish by it
	Rooms          int64             `json:"rooms"`         // with history
	Messages       int64             `json:"messages"`      // that their histories keep
	Bytes          int64             `json:"bytes"`         // of these messages
	Memory         int64             `json:"memory"`        // bytes that the histories cost with all that belongs to them
	MemoryLimit    int64             `json:"memory_limit"`  // for Memory; 0: none
	Numbered       uint64            `json:"numbered"`      // messages that have taken a number
	Batches        uint64            `json:"batches"`       // of followers
	BatchesDropped uint64            `json:"dropped"`       // since too many waited; the followers repeat them
	AnswersDropped uint64            `json:"reads_dropped"` // answers to reads, for the same reason
	Rebuilds       map[string]uint64 `json:"rebuilds"`      // after an earlier sequencer, by what became of the rooms' epochs: kept, new
	Relieved       map[string]uint64 `json:"relieved"`      // times that the limit was reached, by the step that freed memory
}

func ofOrder(of func(*SequencerStats) any) func(*WorkerStats) any {
	return func(w *WorkerStats) any {
		if w.Order == nil {
			return nil
		}
		return of(w.Order)
	}
}

// sequencer has a row for each figure of [SequencerStats].
var sequencer = []Figure[WorkerStats]{
	{Key: "order.term", Kind: Gauge, Help: "The term of the sequencer, which grows with each start of the bus process.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Term })},
	{Key: "order.followers", Metric: "order_followers", Kind: Gauge, Help: "Processes that have the sequencer number what they publish to rooms with history: workers, and the process of the API.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Followers })},
	{Key: "order.rooms", Metric: "order_rooms", Kind: Gauge, Help: "Rooms with history that the sequencer knows.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Rooms })},
	{Key: "order.messages", Metric: "order_messages", Kind: Gauge, Help: "Messages that the histories of the sequencer keep.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Messages })},
	{Key: "order.bytes", Metric: "order_bytes", Kind: Gauge, Help: "Bytes of the messages that the histories of the sequencer keep.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Bytes })},
	{Key: "order.memory", Metric: "order_memory_bytes", Kind: Gauge, Help: "Bytes that the histories of the sequencer cost, with names, positions and idempotency keys.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Memory })},
	{Key: "order.memory_limit", Metric: "order_memory_limit_bytes", Kind: Gauge, Help: "Bytes that order_memory_bytes may come to; beyond it the sequencer forgets histories. 0 for no limit. Set memory_bytes_max.",
		field: ofOrder(func(o *SequencerStats) any { return &o.MemoryLimit })},
	{Key: "order.numbered", Metric: "order_numbered_total", Help: "Messages to rooms with history that the sequencer has numbered.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Numbered })},
	{Key: "order.batches", Metric: "order_batches_total", Help: "Batches of messages and questions that the sequencer has taken from the workers.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Batches })},
	{Key: "order.dropped", Metric: "order_dropped_total", Help: "Batches that the sequencer dropped because too many waited for it; the workers send them again. Messages to rooms with history take longer then.",
		field: ofOrder(func(o *SequencerStats) any { return &o.BatchesDropped })},
	{Key: "order.reads_dropped", Metric: "order_reads_dropped_total", Help: "Answers with older messages that the sequencer dropped because too many waited; the workers ask again.",
		field: ofOrder(func(o *SequencerStats) any { return &o.AnswersDropped })},
	{Key: "order.rebuilds", Metric: "order_rebuilds_total", Label: "epochs", Help: "Times that this bus process took up the work of an earlier one, by what became of the numbering of rooms. kept: it goes on, and clients notice nothing; new: not all workers could say what they had heard in time, and clients are told that messages may be missing.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Rebuilds })},
	{Key: "order.relieved", Metric: "order_memory_freed_total", Label: "step", Help: "Times that the histories of the sequencer reached their limit, by the step that freed memory: unused_histories: of rooms that no client is in; histories: the older half of the largest.",
		field: ofOrder(func(o *SequencerStats) any { return &o.Relieved })},
}
