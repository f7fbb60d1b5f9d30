// Package verify checks a running server from outside: many clients do at random what clients do, well-behaved and
// not, and everything that the wire protocol promises them is held against what they get.
//
// It is a black box: it knows docs/wire.md and nothing of the server's insides. It counts as a finding only what is
// certain. What a client sent before its connection broke may or may not have happened; what a server closed itself
// may have been closed before we read so; both are left open, and judged as far as they still can be (not twice, not
// out of order).
//
// One goroutine drives all clients over one epoll, so "before" means something: every send and every read has its
// place in one order of events. Where the server's order matters, a claim is kept until the connections concerned
// have proved, by an answer to something sent later, that they were alive at the time (see proof.go).
//
// What it refuses to do: measure speed, look into the server, repair what it finds, and guess.
//
// Start reading at [Run], then conn.go for what a client is, delivery.go for what it is owed.
package verify
