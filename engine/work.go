package engine

// Work that may be long goes on for many turns, a part in each, so that input gets its turns in between: leaving many
// rooms, entering them again, sending everybody away.

// job does a part of some work, until the time is over or it has come to an end: then it reports true. It does a little
// at least.
type job func(l *loop, until int64) (done bool)

// partSize is how many steps of a job are taken between two looks at the clock.
const partSize = 16

// work begins a job, in a turn that follows.
func (l *loop) work(j job) {
	l.jobs = append(l.jobs, j)
	l.wake()
}

// workOn does a part of the first job, and of others while there is time.
func (l *loop) workOn(until int64) {
	for n := len(l.jobs); n > 0; n-- {
		j := l.jobs[0]
		l.jobs[0] = nil
		l.jobs = l.jobs[1:]
		if !j(l, until) {
			l.jobs = append(l.jobs, j)
		}
		if l.ground.clock() > until {
			break
		}
	}
	if len(l.jobs) > 0 {
		l.wake()
		return
	}
	l.jobs = nil
}

// inParts makes a job of the steps 0 to n-1, and of an end.
func inParts(n int, step func(l *loop, i int), end func(l *loop)) job {
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
			case l.ground.clock() > until:
				return false
			}
		}
	}
}
