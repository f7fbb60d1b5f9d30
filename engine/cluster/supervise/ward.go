package supervise

import (
	"fmt"
	"math/bits"
	"slices"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// ward is the bus, the api process or one of the workers, over all its processes, one after the other.
//
// Owner: the supervisor's goroutine.
type ward struct {
	role  string
	index int

	process   *process      // nil while there is none
	retryAt   time.Duration // when to start the next, as Supervisor.age
	everReady bool
	restarts  int
	cause     string // of the latest end
	ends      int    // in a row, each before healthyAfter: they decide the backoff
	failed    int    // ends before ready, in a row
	stats     []byte // of the process, the latest
}

const (
	backoffFirst = 100 * time.Millisecond
	backoffMax   = 5 * time.Second
	healthyAfter = 30 * time.Second
	failedMax    = 5
)

// backoff is the wait before a start, after a number of ends in a row. After the first end there is none: the process was
// healthy, and its work is missed.
func backoff(ends int) time.Duration {
	if ends <= 1 {
		return 0
	}
	if ends-2 >= bits.Len(uint(backoffMax/backoffFirst)) {
		return backoffMax
	}
	return min(backoffFirst<<(ends-2), backoffMax)
}

func (w *ward) isReady() bool { return w.process != nil && w.process.ready }

// isMember reports whether the ward's processes are workers or the api process: the others are told of their ends.
func (w *ward) isMember() bool { return w.role != RoleBus }

// start starts a process for w.
func (s *Supervisor) start(w *ward) {
	instance, err := s.nextInstance()
	if err != nil {
		s.giveUp(err)
		return
	}
	p, err := s.spawn(w, instance)
	if err != nil {
		w.ends++
		w.failed++
		w.cause = fmt.Sprintf("cannot be started: %v", err)
		s.log.Error("cannot start "+title(w.role, w.index), "err", err)
		s.again(w, verdict{})
		return
	}
	if w.ends > 0 || w.everReady {
		w.restarts++
	}
	w.process = p
	s.welcome(p)
	if w.role == RoleWorker {
		s.tellPeers(nil, p)
	}
	s.log.Info("started "+title(w.role, w.index), p.attrs()...)
}

// welcome sends p its first message, with its secrets.
func (s *Supervisor) welcome(p *process) {
	peers := s.peers()
	s.forgetDead(peers)
	peers.Dead = s.dead
	w := Welcome{Role: p.ward.role, Index: p.ward.index, Instance: p.instance, Bus: s.busAccess, Peers: peers,
		Settings: s.settings, FrozenAfter: s.plan.FrozenAfter, DrainTimeout: s.plan.DrainTimeout}
	switch p.ward.role {
	case RoleWorker:
		w.Listen = s.addrs
	case RoleAPI:
		w.Listen = []string{s.apiAddr}
	}
	if p.ward.role == RoleBus {
		w.Term, w.Ended = s.nextTerm(), s.past
	} else {
		w.Bus = Bus{}
		if s.bus != nil {
			w.Bus = s.busAccess.access(p.instance)
		}
	}
	s.say(p, command{Welcome: &w})
}

// forgetDead drops deaths older than deathsKept, once a worker is ready. Younger ones are kept for new workers: the
// workers that were told of them may have died before they acted on it.
func (s *Supervisor) forgetDead(peers Peers) {
	if len(peers.Ready) > 0 {
		s.dead = slices.DeleteFunc(s.dead, func(d Death) bool { return time.Since(d.At) > deathsKept })
	}
}

// deathsKept is for how long a death is in the welcome of new workers.
const deathsKept = time.Minute

// peers are the workers that have not been reaped.
func (s *Supervisor) peers() Peers {
	p := Peers{Peers: []ident.Worker{}, Ready: []ident.Worker{}}
	for _, w := range s.workers {
		if w.process != nil {
			p.Peers = append(p.Peers, w.process.instance)
			if w.process.ready {
				p.Ready = append(p.Ready, w.process.instance)
			}
		}
	}
	if s.api != nil && s.api.isReady() {
		p.API = s.api.process.instance
	}
	if s.bus != nil && s.bus.isReady() {
		p.Bus = s.bus.process.instance
	}
	return p
}

// tellPeers sends the peers to every ward but one.
func (s *Supervisor) tellPeers(dead []Death, but *process) {
	peers := s.peers()
	peers.Dead = dead
	for w := range s.wards() {
		if w.process != nil && w.process != but {
			s.say(w.process, command{Peers: &peers})
		}
	}
}

// reported takes a ward's report.
func (s *Supervisor) reported(p *process, r report) {
	if p.ward.process != p {
		return
	}
	switch {
	case r.Beat: // only a beat is a sign of life: a ward with stuck loops may still report stats
		p.beatAt = s.age
	case r.Ready != nil && !p.ready:
		p.beatAt = s.age
		s.becameReady(p, r.Ready.Address)
	case r.Draining && !p.draining:
		p.draining, p.drainAt = true, s.age
		if s.leaving == nil {
			s.log.Info(title(p.ward.role, p.ward.index)+" drains", p.attrs()...)
		}
	case r.Question != nil:
		s.asked(p, *r.Question)
	case r.Reloaded != nil:
		s.reload.answered(s, p, *r.Reloaded)
	case r.Stats != nil:
		p.ward.stats = r.Stats
	}
}

func (s *Supervisor) becameReady(p *process, address string) {
	w := p.ward
	if w.role == RoleBus && !s.plan.BusSilent {
		switch {
		case address == "" && s.busAccess.Address == "":
			s.kill(p, "ready without an address")
			return
		case s.busAccess.Address == "":
			s.busAccess.Address = address
		case address != "" && address != s.busAccess.Address:
			// Workers know the old address, and reconnect to it for ever.
			s.kill(p, fmt.Sprintf("listens on %s instead of %s", address, s.busAccess.Address))
			return
		}
	}
	p.ready, p.readyAt = true, s.age
	w.everReady, w.failed = true, 0
	s.log.Info(title(w.role, w.index)+" is ready", p.attrs("after", time.Since(p.started).Round(time.Millisecond))...)
	s.tellPeers(nil, nil)
}

// verdict is the supervisor's judgement of a process's end.
type verdict struct {
	output        []string
	configuration bool // the exit code means a wrong configuration
}

// gone runs when the kernel has reaped p.
func (s *Supervisor) gone(p *process, e ended) {
	w := p.ward
	if s.plan.Gone != nil && w.role == RoleWorker {
		s.plan.Gone(s.wardStatus(w))
	}
	w.process, w.stats = nil, nil
	w.cause = p.causeOf(e.state)
	if w.isMember() {
		d := Death{p.instance, e.at}
		s.dead, s.past = append(s.dead, d), append(s.past, p.instance)
		s.tellPeers([]Death{d}, nil)
	}
	s.reload.left(p)
	lived := e.at.Sub(p.started).Round(time.Millisecond)
	if s.leaving != nil {
		s.log.Info(title(w.role, w.index)+" ended", p.attrs("cause", w.cause, "lived", lived)...)
		return
	}
	if p.ordered {
		w.ends, w.retryAt = 0, s.age
		s.log.Info(title(w.role, w.index)+" has drained", p.attrs("cause", w.cause, "lived", lived)...)
		return
	}
	if p.ready && s.age-p.readyAt >= healthyAfter {
		w.ends = 0
	}
	w.ends++
	var v verdict
	if !p.ready {
		w.failed++
		var panicked bool
		v.output, panicked = p.output.last()
		v.configuration = p.killed == "" && !panicked && e.state != nil && e.state.ExitCode() == exitConfiguration
	}
	s.log.Error(title(w.role, w.index)+" ended",
		p.attrs("cause", w.cause, "lived", lived, "was_ready", p.ready, "next_start_in", backoff(w.ends))...)
	s.again(w, v)
}

// again plans the next start of w, or gives up. A wrong configuration ends the server at once only if the ward was never
// ready: otherwise a file that is being edited would end a server that works. The end of the api process never ends a
// server whose clients are served.
func (s *Supervisor) again(w *ward, v verdict) {
	w.retryAt = s.age + backoff(w.ends)
	wrong := v.configuration && !w.everReady
	if w.failed < failedMax && !wrong || w.role == RoleAPI && s.complete {
		return
	}
	f := &Failure{Role: w.role, Index: w.index, Cause: w.cause, Starts: w.failed, Output: v.output, Code: exitFailed}
	if v.configuration {
		f.Code = exitConfiguration
	}
	s.giveUp(f)
}
