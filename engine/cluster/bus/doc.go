// Package bus carries what workers of one server say to each other: an embedded NATS server (Server, the bus
// process) and each worker's connection to it (Link).
//
// A worker publishes one stream of numbered batches. Every other worker gets all of them, in that order, each
// exactly once; where a batch is gone for good, the receiver is told which. NATS alone promises none of this:
// its core loses what is under way when it restarts or when a receiver is slow, and nobody hears of it. So a
// publisher keeps what it sent in a ring, a receiver that sees a gap asks the publisher again, and a publisher
// that falls silent says how far it got.
//
// Subjects, where I is the instance of a worker (never 0), and each worker may publish only under its own:
//
//	p.I        batches of I, and its announcements of how far it got, to all
//	q.I.J      I asks J for batches that it missed; q.I.0 asks all how far they got
//	a.I.J      I answers J
//
// What it refuses to do: know what an entry means, keep anything over the end of a process, order the
// batches of two publishers against each other, wait for the bus in Append, Flush or Forget, and create
// streams (the ledger does, over Link.Conn).
//
// Start reading at link.go (a worker's connection), then outbox.go and ring.go (what is published), sender.go
// (the one goroutine that writes), inbox.go and stream.go (what arrives; no I/O there), and server.go.
package bus
