// Package engine is the WebSocket room server: event loops, connections, rooms on the wire, heartbeats,
// sessions, events, and the public API around them.
//
// The engine works in turns. Each loop is one goroutine that takes all input that is there, changes
// state, and then writes once per connection. Code on a loop is single-threaded; the one way to another
// loop is its mailbox. No public call ever waits for a loop, and no connection has a goroutine.
//
// What it refuses to do: TLS (the proxy's), HTTP beyond the opening handshake (engine/admin's), decoding data that it only
// relays, waiting for a peer, and buffering without a bound.
//
// It stands on floors, each of which adds its part of a connection and of a loop, and imports only floors below:
// engine/internal/turn (bytes and turns), fleet (other workers), pending (answers that are awaited), fanout (rooms) and
// session. This package is the application's floor: handlers, events, the public API.
//
// Start reading in engine/internal/turn, where turns are taken, then owner_rooms.go (what a room server does with a
// connection), floors.go (how the floors are put together), dispatch.go and builtin.go. server.go is the public face, and
// engine/internal/reactor the only package that knows gnet. Code here is loop-only unless its comment says otherwise.
package engine
