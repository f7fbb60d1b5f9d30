package supervise

import (
	"encoding/json"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// Status is a supervisor at one moment.
//
// Owner: the caller.
type Status struct {
	State   string       `json:"state"` // starting, running, draining
	PID     int          `json:"pid"`
	Started time.Time    `json:"started"`
	Listen  []string     `json:"listen"`
	Workers []WardStatus `json:"workers"`
	Bus     *WardStatus  `json:"bus,omitempty"`
	API     *WardStatus  `json:"api,omitempty"`
}

// WardStatus is the bus, the api process or a worker at one moment.
//
// Owner: the caller.
type WardStatus struct {
	Index    int             `json:"index"`
	Instance ident.Worker    `json:"instance,omitempty"`
	PID      int             `json:"pid,omitempty"`     // 0 while there is no process
	State    string          `json:"state"`             // starting, ready, draining, backoff, frozen
	Started  time.Time       `json:"started,omitzero"`  // of the process
	Restarts int             `json:"restarts"`          // since the supervisor started
	Cause    string          `json:"cause,omitempty"`   // of the latest end
	Address  string          `json:"address,omitempty"` // the bus's or the api process's
	Stats    json.RawMessage `json:"stats,omitempty"`   // the latest report
}

// Status is the latest state, no older than a tenth of a second. The caller must not change it. Any goroutine.
func (s *Supervisor) Status() Status { return *s.status.Load() }

// publish stores the present state for Status.
func (s *Supervisor) publish() {
	now := &Status{State: "starting", PID: pid, Started: s.started, Listen: s.addrs}
	switch {
	case s.leaving != nil:
		now.State = "draining"
	case s.complete:
		now.State = "running"
	}
	for _, w := range s.workers {
		now.Workers = append(now.Workers, s.wardStatus(w))
	}
	if s.bus != nil {
		bus := s.wardStatus(s.bus)
		bus.Address = s.busAccess.Address
		now.Bus = &bus
	}
	if s.api != nil {
		api := s.wardStatus(s.api)
		api.Address = s.apiAddr
		now.API = &api
	}
	s.status.Store(now)
}

func (s *Supervisor) wardStatus(w *ward) WardStatus {
	now := WardStatus{Index: w.index, State: "starting", Restarts: w.restarts, Cause: w.cause, Stats: w.stats}
	p := w.process
	switch {
	case p == nil && w.ends > 0:
		now.State = "backoff"
	case p == nil:
	case p.killed != "":
		now.State = "frozen"
	case p.draining:
		now.State = "draining"
	case p.ready:
		now.State = "ready"
	}
	if p != nil {
		now.Instance, now.PID, now.Started = p.instance, p.cmd.Process.Pid, p.started
	}
	return now
}

// serving is how many workers are ready and beat.
func (s *Supervisor) serving() (n int) {
	for _, w := range s.workers {
		if w.isReady() && w.process.killed == "" && s.age-w.process.beatAt <= s.plan.FrozenAfter {
			n++
		}
	}
	return n
}
