package engine

// job does a part of some work, until the time is over or it has come to an end: then it reports true. It does a little
// at least.
type job func(until int64) (done bool)

// work begins a job, in a turn that follows.
func (l *turnLoop) work(j job) {
	l.jobs = append(l.jobs, j)
	l.wake()
}

// workOn does a part of the first job, and of others while there is time.
func (l *turnLoop) workOn(until int64) {
	for n := len(l.jobs); n > 0; n-- {
		j := l.jobs[0]
		l.jobs[0] = nil
		l.jobs = l.jobs[1:]
		if !j(until) {
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
