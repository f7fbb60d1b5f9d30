// Package frame speaks RFC 6455 frames from the server's side: an incremental decoder over borrowed bytes
// that unmasks in place, and functions that append frames.
//
// Any split of the input into chunks, down to single bytes, gives the same parts. Declared lengths never
// allocate, and a decoder at rest holds no buffer. The header type, opcodes, status codes and the cipher
// are gobwas/ws's. The code is ours where that library blocks, allocates or accepts frames that the RFC forbids
// (docs/decisions/gobwas.md).
//
// What it refuses to do: I/O, assembling messages, inflating, and deciding when to answer.
//
// Start reading at [Decoder.Next].
package frame
