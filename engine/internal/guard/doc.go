// Package guard keeps panics from ending the process: those of the application's code, and those of our own.
//
// What it refuses to do: it never goes on where a lock may be held for ever, and it hides no panic from the log.
//
// Start reading at guard.go.
package guard
