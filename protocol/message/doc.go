// Package message is the JSON envelope of the messages between a client and the server.
//
// [Route] scans a client's message once, by hand: it finds the keys of the envelope, holds the whole text against
// the grammar, and decodes nothing else, so that data is passed through byte for byte. The Append functions build
// every message of the server's own. [Decode] and [Encode] are sonic, for the application's types. Why the envelope
// does not use sonic: docs/decisions/envelope.md.
//
// What it refuses to do: knowing what a message means, and keeping borrowed bytes.
//
// Start reading at [Route].
package message
