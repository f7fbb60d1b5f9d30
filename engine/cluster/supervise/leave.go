package supervise

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

// leaving is the supervisor's shutdown. The workers are told to drain; those that have not ended after DrainTimeout get
// SIGTERM, and a second later SIGKILL. The api process leaves with the workers. Then the bus is told, with a second for each step: draining workers store sessions
// on it. A worker that was not ready has no clients: it gets no more time than the bus.
//
// Owner: the supervisor's goroutine.
type leaving struct {
	asked       time.Duration // when it began, as Supervisor.age
	since       time.Duration // when its present step began
	busSince    time.Duration // when the last worker had ended
	signalled   bool          // a signal has been taken
	signalledAt time.Duration // as Supervisor.age
	now         bool          // kill, do not ask
	abandoned   bool          // a killed process does not end
}

const (
	killAfter    = time.Second
	quickDrain   = time.Second
	abandonAfter = 5 * time.Second
)

// leave begins the shutdown; later calls have no effect.
func (s *Supervisor) leave(why string) {
	if s.leaving != nil {
		return
	}
	s.leaving = &leaving{asked: s.age, since: s.age, busSince: -1}
	s.log.Info("stopping", "why", why, "within", s.plan.DrainTimeout+killAfter+quickDrain+killAfter)
	s.notify.Stopping()
	// New dials are refused once the last worker has closed its own copy.
	s.closeListeners()
}

// stopNow kills all wards.
func (s *Supervisor) stopNow() {
	if s.leaving.now {
		return
	}
	s.leaving.now, s.leaving.since = true, s.age
	s.log.Warn("second signal: stopping at once")
	s.err = errors.Join(s.err, ErrStopped)
	for w := range s.wards() {
		if w.process != nil {
			s.kill(w.process, ErrStopped.Error())
		}
	}
}

// turn takes the step that is due for each process.
func (l *leaving) turn(s *Supervisor) {
	if l.now {
		if s.age-l.since > abandonAfter {
			l.abandon(s)
		}
		return
	}
	workers := false
	for w := range s.wards() {
		if w != s.bus && w.process != nil {
			workers = true
			within := s.plan.DrainTimeout
			if !w.process.ready {
				within = min(within, quickDrain)
			}
			s.escalate(w.process, s.age-l.since, within)
		}
	}
	if workers {
		if s.age-l.since > s.plan.DrainTimeout+killAfter+abandonAfter {
			l.abandon(s)
		}
		return
	}
	if l.busSince < 0 {
		l.busSince = s.age
	}
	if s.bus != nil && s.bus.process != nil {
		s.escalate(s.bus.process, s.age-l.busSince, quickDrain)
		if s.age-l.busSince > quickDrain+killAfter+abandonAfter {
			l.abandon(s)
		}
	}
}

// escalate sends p the next of drain, SIGTERM and SIGKILL if that is due. after is the time since the first.
func (s *Supervisor) escalate(p *process, after, within time.Duration) {
	switch {
	case p.kills == 0:
		p.kills, p.draining = 1, true
		s.say(p, command{Drain: &Drain{Within: within}})
	case p.kills == 1 && after >= within:
		p.kills = 2
		s.signal(p, syscall.SIGTERM)
	case p.kills == 2 && after >= within+killAfter:
		p.kills = 3
		s.kill(p, fmt.Sprintf("did not drain within %v", within))
	}
}

// abandon gives up on processes that SIGKILL does not end, because the kernel holds them in a system call.
func (l *leaving) abandon(s *Supervisor) {
	l.abandoned = true
	for w := range s.wards() {
		if p := w.process; p != nil {
			s.err = errors.Join(s.err, fmt.Errorf("end %s: process %d was killed but does not end; look at its state with ps",
				title(w.role, w.index), p.cmd.Process.Pid))
		}
	}
}

// over reports whether Run may return.
func (s *Supervisor) over() bool {
	if s.leaving == nil {
		return false
	}
	if s.leaving.abandoned {
		return true
	}
	for w := range s.wards() {
		if w.process != nil {
			return false
		}
	}
	return true
}
