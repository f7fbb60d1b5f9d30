// Package ledger keeps the records that the workers of one server must agree on: sessions, the seats of limited rooms, and
// the created rooms. It keeps them in JetStream streams on the bus.
//
// Each change is decided by a compare-and-set on the revision of a record, never by a read: a read may be stale, a set
// cannot be. Every version of a record carries the mark of its write. A set whose answer was lost is sent again unchanged;
// if it then fails, and the record carries our mark, the first one had succeeded. So no change is in doubt for longer than
// the bus is away, and none happens twice.
//
// No call waits. Its callback gets the outcome, on the ledger's goroutine, in order for each key; callbacks must not block,
// they post to the caller's loop. A call returns ErrBusy if too many are pending (its callback is then never called), and
// a callback gets ErrAway if the bus did not answer in time.
//
// What it refuses to do: open connections, know event loops or clients, look into the values that it keeps, carry
// messages, or detect deaths by itself (the caller reports them, after the kernel).
//
// Start reading in ledger.go (the goroutine), then set.go (the one way to change a record), then sessions.go.
package ledger

import "errors"

var (
	// ErrBusy: too many calls are pending. Try again later; nothing happened.
	ErrBusy = errors.New("ledger is busy: try again, or raise PendingMax")
	// ErrAway: the bus did not answer in time. The call may still succeed; each method says how the ledger goes on.
	ErrAway = errors.New("bus is away: try again")
	// ErrClaimed: another claim holds the session.
	ErrClaimed = errors.New("session is claimed")
	// ErrUnknown: the session or room does not exist.
	ErrUnknown = errors.New("no such record")
	// ErrFull: the room has no seat left.
	ErrFull = errors.New("room is full")
	// ErrExists: the room exists already.
	ErrExists = errors.New("room exists")
	// ErrClosed: the ledger has been closed.
	ErrClosed = errors.New("ledger is closed")
	// ErrTooLarge: a session has more than ValueBytesMax bytes. Nothing happened.
	ErrTooLarge = errors.New("session is too large")
	// ErrOutdated: a later start of the server owns the record; this worker belongs to an earlier start.
	ErrOutdated = errors.New("a later start of the server owns the record: end this worker")
)
