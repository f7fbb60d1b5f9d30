// Package conformance asks an echo server, as a stranger over TCP, every question of the public Autobahn
// suite: its 517 cases of the families 1 to 7, 9, 10, 12 and 13, written anew as tables, plus a family X
// of our own for what that suite never asks (masking, lengths that are not minimal, the corners of
// permessage-deflate).
//
// A row says what is sent, in which pieces, what must come back, and how the connection must end. The
// verdict is the strict one: what the public suite grades NON-STRICT fails here, a connection that the
// server fails must end with a close frame of the right code (the public suite lets a bare disconnect
// pass), and in the end the server must close the TCP connection first.
//
// What it refuses to do: import anything of ours (it has its own naive framing, and an inflater that
// polices the window), assert a duration (there are only deadlines), test the opening handshake beyond
// what it needs, and send heartbeats.
//
// Start reading at conformance.go ([Run]), then row.go (what a row can say) and play.go (how it is acted
// out). The tables are in rows_*.go, the stranger's side of the protocol in conn.go, wire.go, deflate.go
// and inflate.go.
package conformance
