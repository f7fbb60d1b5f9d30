// Package handshake is the server's side of the WebSocket opening handshake, from borrowed bytes
// [RFC 6455 §4.2].
//
// What it refuses to do: I/O, waiting, any HTTP beyond one GET, and deciding which clients may connect.
//
// Start reading at [End], [Parse], then [AppendSwitch] and [AppendRefusal].
package handshake
