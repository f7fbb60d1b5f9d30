// Package verify checks a running server from outside: many clients act at random, well-behaved and not, and the
// messages that they get are compared with the promises of the wire protocol.
//
// The checker knows docs/wire.md and nothing of the server's insides. It reports only certain faults. A request that a
// client sent before its connection broke may or may not have taken effect; a connection that the server closed may have
// been closed before we read so. Both are left open, and checked only in part (not twice, not out of order).
//
// One goroutine drives all clients over one epoll, so that every send and every read has its place in one order of
// events. If the server's own order matters, the checker keeps a suspicion until the connections concerned have proved,
// by an answer to a later request, that they were alive at the time (see proof.go).
//
// What it refuses to do: measure speed, look into the server, repair faults, and guess.
//
// Start reading at [Run], then conn.go for a client, delivery.go for the messages that it must get.
package verify
