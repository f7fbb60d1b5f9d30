package supervise

import (
	"encoding/json"
	"slices"
	"time"
)

// reloading is a change of settings: it asks the plan for them, passes them on, and waits for every ward's answer.
//
// Owner: the supervisor's goroutine.
type reloading struct {
	generation int
	asking     bool // Plan.Reload runs
	handed     bool // the wards have the settings, and have not all answered
	again      bool // SIGHUP came meanwhile
	since      time.Duration
	waiting    []*process
	fixed      []string // names that have been logged
}

// reloadWait bounds the wait for answers. A late answer is logged all the same.
const reloadWait = 5 * time.Second

func (r *reloading) busy() bool { return r.asking || r.handed }

// ask begins a reload.
func (r *reloading) ask(s *Supervisor) {
	if s.leaving != nil {
		return
	}
	if s.plan.Reload == nil {
		s.log.Warn("SIGHUP changes nothing: this server does not reload; restart it")
		return
	}
	if r.busy() {
		r.again = true
		return
	}
	r.asking = true
	s.notify.Reloading()
	go func() {
		settings, err := s.plan.Reload()
		s.post(func() { r.got(s, settings, err) })
	}()
}

func (r *reloading) got(s *Supervisor, settings json.RawMessage, err error) {
	r.asking = false
	if err == nil {
		err = checkSettings(settings)
	}
	if err != nil {
		s.log.Error("the configuration cannot be reloaded; the old one stays in force", "err", err)
		r.finish(s)
		return
	}
	r.generation++
	r.fixed, r.handed, r.since = nil, true, s.age
	s.settings = settings
	for w := range s.wards() {
		if w.process != nil {
			r.waiting = append(r.waiting, w.process)
			s.say(w.process, command{Reload: &Reload{Settings: settings, Generation: r.generation}})
		}
	}
}

// answered logs the settings that a ward cannot change while it runs, each name once.
func (r *reloading) answered(s *Supervisor, p *process, a reloadReport) {
	if a.Generation != r.generation {
		return
	}
	for _, name := range a.Fixed {
		if !slices.Contains(r.fixed, name) {
			r.fixed = append(r.fixed, name)
			s.log.Warn("a setting has changed that needs a restart; the old value stays in force", "setting", name)
		}
	}
	r.left(p)
}

// left stops waiting for a process that answered or ended.
func (r *reloading) left(p *process) {
	r.waiting = slices.DeleteFunc(r.waiting, func(q *process) bool { return q == p })
}

// turn ends the wait for answers.
func (r *reloading) turn(s *Supervisor) {
	if !r.handed || len(r.waiting) > 0 && s.age-r.since <= reloadWait {
		return
	}
	for _, p := range r.waiting {
		s.log.Warn(title(p.ward.role, p.ward.index)+" has not confirmed the new settings", p.attrs()...)
	}
	s.log.Info("reloaded", "generation", r.generation)
	r.finish(s)
}

func (r *reloading) finish(s *Supervisor) {
	r.waiting, r.handed = nil, false
	if s.complete && s.leaving == nil {
		s.notify.Ready()
	}
	if r.again {
		r.again = false
		r.ask(s)
	}
}
