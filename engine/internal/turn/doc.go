// Package turn moves bytes in turns: the loop, its mailbox, slab, timing wheel and timers, and of a connection the opening
// handshake, the way in, the way out, the heartbeat and the close.
//
// A loop is one goroutine. It takes all input that is there, has state changed, and then writes once per connection. The
// code above decides what the input means: the [Owner] of the connections and the [Floor] of the loop. An owner's type has
// its [Conn] as the first field, and a floor's has its [Loop], so that each is found from the other without a pointer.
//
// What it refuses to do: it knows no room, no session, no JSON message, no other worker and no reactor; it never waits, and
// it holds nothing without a bound.
//
// Start reading at owner.go (the code above), then loop.go (a turn), conn_recv.go and conn_send.go (the way in and out), and
// mailbox.go (the way from other goroutines). Code here is for the loop's goroutine only unless its comment names other
// goroutines.
package turn
