package engine

// Work that may be long goes on for many turns, a part in each, so that input gets its turns in between: leaving many
// rooms, entering them again, sending everybody away.

// steps does a part of some work on a loop, as a [job].
type steps func(l *loop, until int64) (done bool)

// partSize is how many steps of a job are taken between two looks at the clock.
const partSize = 16

// work begins some work, in a turn that follows.
func (l *loop) work(j steps) {
	l.Loop.Work(func(until int64) bool { return j(l, until) })
}

// inParts makes a job of the steps 0 to n-1, and of an end.
func inParts(n int, step func(l *loop, i int), end func(l *loop)) steps {
	i := 0
	return func(l *loop, until int64) bool {
		for {
			for range min(partSize, n-i) {
				step(l, i)
				i++
			}
			switch {
			case i == n:
				end(l)
				return true
			case l.Ground.Clock() > until:
				return false
			}
		}
	}
}
