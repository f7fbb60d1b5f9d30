package verify

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Kills. The checker kills or freezes one part of the server at a time, and waits for a quiet point before the next. A
// change that was answered earlier than sessionWindow before a kill must hold afterwards. Messages that a killed worker's
// clients published in its last moments are uncertain. All other promises hold.

const (
	sessionWindow = 50 * time.Millisecond
	shakenFor     = 5 * time.Second // after it, restarts are over, and seats and counts must be right
	lastMoments   = time.Second
)

// disturbed reports whether a recent kill, freeze or wipe excuses faults.
func (k *checker) disturbed() bool {
	return k.granted < k.restUntil || k.wiping != nil
}

// unsettled reports whether a quiet point must wait for the server to come to rest.
func (k *checker) unsettled() bool { return k.disturbed() }

// mayBeForgotten reports whether a stay changed so shortly before a kill that the session may lack the change: the
// connection ended because of the kill, or its worker may not have been able to save it. The window is not stretched on a
// slow machine: a server must not tell the client that it joined before the session has it.
func (k *checker) mayBeForgotten(s *stay) bool {
	return k.recentlyChanged(s.conn, s.moved)
}

// recentlyChanged is mayBeForgotten for any change of c's session at a time.
func (k *checker) recentlyChanged(c *conn, at time.Time) bool {
	return (c.killed || k.disturbed()) && at.After(k.killed.Add(-sessionWindow))
}

// planKills starts the kills, freezes and wipes of the options.
func (k *checker) planKills() {
	if k.server != nil {
		k.every(100*time.Millisecond, func() {
			if !k.server.alive() {
				k.fatal = fmt.Errorf("the server that was started has ended (%v) and said: %s", k.server.err, k.server.said)
			}
		})
	}
	if len(k.opt.roles()) == 0 && k.opt.Wipe == "" {
		return
	}
	k.every(time.Second, func() { k.seconds = append(k.seconds, k.evt) })
	k.every(2*time.Second, func() {
		if !k.disturbed() && k.settled.After(k.shaken) && k.now.Sub(k.started) < k.opt.For {
			k.disturb()
		}
	})
}

// roles are those of the processes that are killed: each time one of them is drawn.
func (o *Options) roles() (list []string) {
	if o.Kill {
		list = append(list, "worker", "worker", "worker")
	}
	if o.KillBus {
		list = append(list, "bus")
	}
	if o.KillAPI {
		list = append(list, "api")
	}
	return list
}

// disturb kills or freezes one part of the server, or has its store wiped.
func (k *checker) disturb() {
	kills := k.opt.roles()
	if k.opt.Wipe != "" && (len(kills) == 0 || k.rng.IntN(4) == 0) {
		k.shake()
		k.killed, k.cuts = k.now, false
		k.report.Done["wiped"]++
		k.wipe()
		return
	}
	role := kills[0]
	if k.report.Done["killed "+role] > 0 { // even a short run kills a worker
		role = kills[k.rng.IntN(len(kills))]
	}
	pids := k.server.workers(role)
	if len(pids) == 0 {
		note := fmt.Sprintf("no %s was found to kill: the server has none (PARLEY_ROLE=%s in its environment)", role, role)
		if !slices.Contains(k.report.Notes, note) {
			k.report.Notes = append(k.report.Notes, note)
		}
		return
	}
	pid := pids[k.rng.IntN(len(pids))]
	k.shake()
	k.killed, k.cuts = k.now, role == "worker"
	k.beforeKill = k.earlierEvents(lastMoments)
	switch draw := k.rng.IntN(10); {
	case draw < 6 || role != "worker" || k.report.Done["killed worker"] == 0: // even a short run kills a worker
		if role == "api" {
			k.api.life++
			k.api.doubtDelayed()
		}
		syscall.Kill(pid, syscall.SIGKILL)
		k.report.Done["killed "+role]++
		k.harmed(fmt.Sprintf("killed %s, process %d", role, pid))
	case draw < 8:
		k.freezeWorker(pid, time.Duration(300+k.rng.IntN(1200))*time.Millisecond)
	default:
		k.freezeWorker(pid, 4*time.Second)
	}
}

// shake begins the time in which the server recovers.
func (k *checker) shake() {
	k.shaken, k.restUntil = k.now, k.granted+shakenFor
}

// freezeWorker stops a worker for a while. The server may kill it meanwhile.
func (k *checker) freezeWorker(pid int, d time.Duration) {
	if syscall.Kill(pid, syscall.SIGSTOP) != nil {
		return
	}
	k.report.Done["frozen worker"]++
	k.harmed(fmt.Sprintf("frozen worker, process %d", pid))
	k.in(d, func() {
		k.shake()                                             // and killed stays: messages that it had not sent when it froze may be lost
		if slices.Contains(k.server.workers("worker"), pid) { // no other process has its number by now
			syscall.Kill(pid, syscall.SIGCONT)
			k.harmed(fmt.Sprintf("thawed worker, process %d", pid))
		}
	})
}

// harmed records a kill, a freeze or a wipe for the report.
func (k *checker) harmed(what string) {
	k.report.Harm = append(k.report.Harm, fmt.Sprintf("%8.4f  %s", k.now.Sub(k.started).Seconds(), what))
}

// earlierEvents is a place in the order of events at least ago before now.
func (k *checker) earlierEvents(ago time.Duration) uint64 {
	n := len(k.seconds) - int(ago/time.Second) - 1
	if n < 0 {
		return 0
	}
	evt := k.seconds[n]
	k.seconds = k.seconds[n:]
	return evt
}
