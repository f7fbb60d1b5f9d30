package engine

// Long work takes many turns, a part in each, so that input gets its turns in between: leaving many rooms, entering them
// again, ending all connections.

// steps does a part of some work on a loop, as a job of the transport does.
type steps func(l *loop, until int64) (done bool)

// partSize is the number of steps of a job between two looks at the clock.
const partSize = 16

// work begins a job in a later turn.
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
