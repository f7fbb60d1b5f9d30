// Package conformance plays the cases of the public Autobahn suite against an echo server, over TCP: its 517 cases of the
// families 1 to 7, 9, 10, 12 and 13, rewritten as tables, and a family X of our own for questions that the public suite
// does not ask (masking, lengths that are not minimal, rare cases of permessage-deflate).
//
// A row has the frames to send, how they are cut into writes, the expected answers, and how the connection must end. The
// verdict is strict: an answer that the public suite grades NON-STRICT fails here, a connection that the server fails must
// end with a close frame of the right code (the public suite accepts a bare disconnect), and the server must close the TCP
// connection first.
//
// What it refuses to do: use our implementation of the protocol (it has its own simple framing, and an inflater that checks
// the window), assert a duration (there are only deadlines), test the opening handshake beyond its needs, and send
// heartbeats.
//
// Start reading at conformance.go ([Run]), then row.go (the parts of a row) and play.go (how a row is played). The tables
// are in rows_*.go, the client's side of the protocol in conn.go, wire.go, deflate.go and inflate.go.
package conformance
