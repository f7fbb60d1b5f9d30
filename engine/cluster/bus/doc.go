// Package bus carries the messages between the workers of one server: an embedded NATS server (Server, the bus process)
// and each worker's connection to it (Link).
//
// A worker publishes one stream of numbered batches. Every other worker gets all of them, in that order, each exactly
// once; where a batch cannot be had any more, the receiver is told its number. NATS alone promises none of this: it
// silently loses messages when it restarts or when a receiver is slow. So a publisher keeps its newest batches in a
// ring, a receiver that finds a gap asks the publisher again, and a silent publisher announces its highest number.
//
// Subjects, where I is the instance of a worker (never 0), and each worker may publish only under its own:
//
//	p.I        batches of I, and announcements of its highest number, to all
//	q.I.J      I asks J for batches that it missed; q.I.0 asks all for their highest numbers
//	a.I.J      I answers J
//	o.I        what I submits to the sequencer, which gives the messages of rooms with history one order
//	r.S.I      the sequencer, whose instance is S, answers I
//
// The sequencer is a user of its own kind: it publishes p.S, a.S.J and r.S.I, and is alone in hearing o.I. What is lost of o.I and
// r.S.I is not noticed here: the follower repeats it (package order).
//
// What it refuses to do: know what an entry means, keep anything beyond the end of a process, order the batches of two
// publishers against each other, wait for the bus in Append, Flush or Forget, and create streams (the ledger does, over
// Link.Conn).
//
// Start reading at link.go (a worker's connection), then outbox.go and ring.go (batches to publish), sender.go (the one
// goroutine that writes), inbox.go and stream.go (batches that arrive; without I/O),
// courier.go (the sequencer's mail), and server.go.
package bus
