package turn

import (
	"math"
	"time"
)

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

// EndAll ends the loop's connections for a cause, one slot after the other, in the turns that follow.
func (l *Loop) EndAll(cause Cause) {
	next, more := uint32(0), true
	l.Work(func(until int64) bool {
		for more && l.Ground.Clock() <= until || next == 0 && more {
			left := PartSize
			next, more = l.Slab.From(next, func(c *Conn) bool {
				c.EndBy(cause)
				left--
				return left > 0
			})
		}
		return !more
	})
}

// EndEvenly ends the loop's connections for a cause, evenly over a time, and calls done in the turn that ends the last one.
func (l *Loop) EndEvenly(cause Cause, over time.Duration, done func()) {
	total, ended, begun := 0, 0, l.Ground.Clock()
	l.Slab.Each(func(*Conn) bool { total++; return true })
	next, more := uint32(0), true
	var step func()
	step = func() {
		due := math.MaxInt // those too that came meanwhile
		if passed := time.Duration(l.Ground.Clock() - begun); passed < over && ended < total {
			due = int(float64(total) * float64(passed) / float64(over))
		}
		l.Work(func(until int64) bool {
			for first := true; more && ended < due && (first || l.Ground.Clock() <= until); first = false {
				part := min(ended+PartSize, due)
				next, more = l.Slab.From(next, func(c *Conn) bool {
					c.EndBy(cause)
					ended++
					return ended < part
				})
			}
			switch {
			case !more:
				done()
			case ended >= due:
				l.After(evenStep, step)
			default:
				return false
			}
			return true
		})
	}
	step()
}

// evenStep is the time between two steps of EndEvenly.
const evenStep = 20 * time.Millisecond

// PartSize is the number of steps of a job between two looks at the clock.
const PartSize = 16
