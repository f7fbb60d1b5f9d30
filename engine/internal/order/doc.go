// Package order gives the messages of rooms with history one order over several workers: the sequencer, which numbers them
// and keeps the histories, and the followers, which are the workers and the api process.
//
// A follower numbers its publishes 1, 2, 3 ... and submits them; the sequencer takes only the next one. Everything that the
// sequencer decides it says in one stream, which all followers hear in the same order, so that a follower which is attached to
// a room between two entries knows exactly which message comes next. What is older than that it reads.
//
// What it refuses to do: I/O, reading a clock, starting a goroutine, and knowing a connection. The caller carries the bytes; the
// carrier may lose, double and delay submissions and answers, and must deliver the stream in order or say that a part is lost.
//
// Start reading at wire.go (what is said), then sequencer.go, then follower.go.
package order
