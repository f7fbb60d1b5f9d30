package turn

// job does a part of its work, at least a little, until the time is over or the work is complete: then it reports true.
type job func(until int64) (done bool)

// Work begins a job in a later turn.
func (l *Loop) Work(j job) {
	l.Jobs = append(l.Jobs, j)
	l.Wake()
}

// workOn does a part of the first job, and of others while there is time.
func (l *Loop) workOn(until int64) {
	for n := len(l.Jobs); n > 0; n-- {
		j := l.Jobs[0]
		l.Jobs[0] = nil
		l.Jobs = l.Jobs[1:]
		if !j(until) {
			l.Jobs = append(l.Jobs, j)
		}
		if l.Ground.Clock() > until {
			break
		}
	}
	if len(l.Jobs) > 0 {
		l.Wake()
		return
	}
	l.Jobs = nil
}
