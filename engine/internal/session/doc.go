// Package session is the floor of sessions: the state that a token restores on a new connection, once. Here are the worker's
// memory of its sessions, the interface of the store that several workers share, the saves, and the way of a session from a
// connection to its heir.
//
// What it refuses to do: it never gives one session to two connections, never lets a loop wait for the store, and keeps no
// token that could be read out of memory.
//
// Start reading at sessions.go (what a connection and a loop have here) and session.go, then resume.go, handover.go, and
// store.go with save.go. Code here is loop-only unless its comment says otherwise.
package session
