// Package reactor runs the loops of package turn on gnet, accepts connections, and puts each on a loop. It is the only
// package that knows gnet.
//
// What it refuses to do: it looks into no byte that a connection sends, waits for no loop but to enrol a connection on it,
// and leaves gnet's own listener, write buffer and task queues unused (docs/decisions/reactor.md).
//
// Start reading at config.go (what its server tells it), then reactor.go (loops and doorbells), acceptor.go and lane.go.
package reactor
