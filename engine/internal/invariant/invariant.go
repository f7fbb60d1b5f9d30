// Package invariant is for what must hold, whatever clients, applications and the world do. Where it does not hold the fault
// is ours: a build with the tag invariants panics, which ends the worker, and its clients resume elsewhere. Tests and the
// simulation are built with the tag. A build without it checks nothing, and pays nothing.
//
// What it refuses to do: to repair what is broken, and to judge what peers send, which is never our fault.
//
// Start reading at [Broken].
package invariant

import "fmt"

// Broken panics with what does not hold. format and values are as for [fmt.Sprintf]. Callers ask [On] first.
func Broken(format string, values ...any) { panic("invariant: " + fmt.Sprintf(format, values...)) }
