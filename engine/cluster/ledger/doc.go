// Package ledger keeps what the workers of one server must agree on: sessions, the seats of limited rooms, and
// the rooms that were created on purpose. It keeps them in JetStream streams on the bus.
//
// Everything is decided by a compare-and-set on the revision of a record, never by a read: a read may be stale,
// a set cannot be. Every version of a record carries the mark of its writer. A set whose answer was lost is sent
// again unchanged; where it then fails, and the record carries our mark, the lost one had landed. So nothing is
// in doubt for longer than the bus is away, and nothing happens twice.
//
// No call waits. What a call leads to is told by its callback, on the ledger's goroutine, in order for each key;
// callbacks must not block, they post to the caller's loop. A call returns ErrBusy where too many are pending
// (its callback is then never called), and a callback gets ErrAway where the bus did not answer in time.
//
// What it refuses to do: open connections, know event loops or clients, look into the values that it keeps,
// carry messages, or find out by itself who is dead (the caller says so once the kernel has).
//
// Start reading in ledger.go (the goroutine), then set.go (the one way to change a record), then sessions.go.
package ledger

import "errors"

var (
	// ErrBusy: too many calls are pending. Try again later; nothing happened.
	ErrBusy = errors.New("ledger is busy: try again, or raise PendingMax")
	// ErrAway: the bus did not answer in time. What became of the call is not known yet; each call says what the
	// ledger does about it.
	ErrAway = errors.New("bus is away: try again")
	// ErrClaimed: somebody else has claimed the session.
	ErrClaimed = errors.New("session is claimed")
	// ErrUnknown: there is no such session or room, or no more.
	ErrUnknown = errors.New("no such record")
	// ErrFull: the room has no seat left.
	ErrFull = errors.New("room is full")
	// ErrExists: the room was created before.
	ErrExists = errors.New("room exists")
	// ErrClosed: the ledger has been closed.
	ErrClosed = errors.New("ledger is closed")
	// ErrTooLarge: a session has more than ValueBytesMax bytes. Nothing happened.
	ErrTooLarge = errors.New("session is too large")
	// ErrOutdated: a later start of the server owns the record; this worker belongs to one that is over.
	ErrOutdated = errors.New("a later start of the server owns the record: end this worker")
)
