// Package rooms is the state of rooms: members, held seats, limits, and the order of publications. It is pure
// state.
//
// What it refuses to do: I/O, telling the time (times are arguments), starting goroutines, and knowing what
// a connection is: a member is a [Place].
//
// Start reading at [Room], then [Index.Enter] and [Room.Publish].
package rooms
