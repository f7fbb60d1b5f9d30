// Package message is the JSON envelope: what a client and the server say to each other.
//
// [Route] looks through a client's message once, by hand: it finds the keys of the envelope, holds the whole
// text against the grammar, and decodes nothing else, so that data is passed through byte for byte. The
// Append functions build every message that the server says by itself. [Decode] and [Encode] are sonic, for
// the application's own types. Why not sonic for the envelope: docs/decisions/envelope.md.
//
// What it refuses to do: knowing what a message means, and keeping what it borrows.
//
// Start reading at [Route].
package message
