package figures

import "github.com/parleyd/parley/engine/internal/order"

// Waits counts publishes by the time until they had their numbers: see [order.WaitBounds].
type Waits [len(order.WaitBounds) + 1]uint64

func orderFigure(of func(*order.Counts) uint64) func(*Source) uint64 {
	return func(s *Source) uint64 {
		c := s.Rooms.Order.Counts()
		return of(&c)
	}
}

// ordering has a row for each figure of the way to the sequencer; all are 0 where there is one process.
var ordering = []Figure[Stats]{
	{Key: "order_outstanding", Metric: "order_outstanding", Kind: Gauge, Help: "Publishes to rooms with history that wait for their numbers, where there are several processes.",
		field: func(s *Stats) any { return &s.OrderOutstanding },
		read:  orderFigure(func(c *order.Counts) uint64 { return uint64(c.Outstanding) })},
	{Key: "order_publishes", Metric: "order_publishes_total", Help: "Publishes to rooms with history that workers have sent to the sequencer. Those of the API's process are not among them.",
		field: func(s *Stats) any { return &s.OrderPublishes },
		read:  orderFigure(func(c *order.Counts) uint64 { return c.Publishes })},
	{Key: "order_unanswered", Metric: "order_unanswered_total", Help: "Publishes to rooms with history that the sequencer did not answer within two seconds: their clients got unavailable, and it is not known whether the messages will appear.",
		field: func(s *Stats) any { return &s.OrderUnanswered },
		read:  orderFigure(func(c *order.Counts) uint64 { return c.Unanswered })},
	{Key: "order_reads", Metric: "order_reads_total", Help: "Questions to the sequencer for older messages of a room: for clients that come back, and for what was lost on the bus.",
		field: func(s *Stats) any { return &s.OrderReads },
		read:  orderFigure(func(c *order.Counts) uint64 { return c.Reads })},
	{Key: "order_resets", Metric: "order_resets_total", Help: "Rooms in which a worker has begun a new epoch, because the bus process was started again; a room on two workers counts twice.",
		field: func(s *Stats) any { return &s.OrderResets },
		read:  orderFigure(func(c *order.Counts) uint64 { return c.Resets })},
	{Key: "order_waits", Metric: "order_seconds", Kind: Histogram, Help: "Seconds until a publish to a room with history had its number from the sequencer.",
		field:  func(s *Stats) any { return &s.OrderWaits },
		bounds: order.WaitBounds[:], micros: func(s *Stats) uint64 { return s.OrderWaitMicros }},
	{Key: "order_wait_micros", Help: "The sum of the durations in order_waits, in microseconds.",
		field: func(s *Stats) any { return &s.OrderWaitMicros },
		read:  orderFigure(func(c *order.Counts) uint64 { return c.Micros })},
}
