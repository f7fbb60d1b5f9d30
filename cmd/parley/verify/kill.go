package verify

import (
	"context"
	"fmt"
	"github.com/parleyd/parley/engine/canary"
	"os"
	"os/exec"
	"slices"
	"strconv"
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
	if k.remembers() && (role == "bus" || role == "worker" && len(pids) == 1) {
		k.book.Renumbered()
	}
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

// Wipes. A command empties the server's store of sessions and seats, while workers and clients live on. Only sessions
// without a connection may be lost: five seconds later every client must have a token that works, and a limited room must
// take members up to its limit.

// wipe is a command that runs.
//
// Owner: the goroutine that runs the checker. The command's goroutine sends once on ended.
type wipe struct {
	ended chan error
}

// wipeWait is how long the command may take on an idle machine.
const wipeWait = 20 * time.Second

// wipe runs the command, and looks for its end.
func (k *checker) wipe() {
	cmd := exec.Command("/bin/sh", "-c", k.opt.Wipe)
	said := &tail{}
	cmd.Stdout, cmd.Stderr, cmd.Env = said, said, os.Environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C must not reach it
	cmd.WaitDelay = time.Millisecond                      // processes that it leaves behind may keep its output open
	if k.server != nil {
		if pids := k.server.workers("bus"); len(pids) > 0 {
			cmd.Env = append(cmd.Env, "VERIFY_BUS="+strconv.Itoa(pids[0]))
		}
	}
	w := &wipe{ended: make(chan error, 1)}
	k.wiping = w
	go func() {
		err := runFor(cmd, canary.Stretch(wipeWait))
		if err != nil {
			err = fmt.Errorf("wipe: the command failed (%w) and said: %s", err, said)
		}
		w.ended <- err
	}()
	k.in(lookEvery, k.awaitWipe)
}

// runFor runs a command to its end, and kills it after limit. Processes that the command leaves behind are no error.
func runFor(cmd *exec.Cmd, limit time.Duration) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }) // the group that we made
	err := cmd.Wait()
	if !stop() && ctx.Err() != nil {
		return fmt.Errorf("it took longer than %v", limit.Round(time.Second))
	}
	if err == exec.ErrWaitDelay {
		return nil
	}
	return err
}

// awaitWipe goes on when the command has ended: the server has five seconds from then on.
func (k *checker) awaitWipe() {
	select {
	case err := <-k.wiping.ended:
		k.wiping = nil
		if err != nil {
			k.fatal = err
			return
		}
		k.harmed("wiped, by a command that ended now")
		k.shake()
		k.wiped = k.now
		for _, s := range k.tokens {
			s.wiped = s.wiped || !s.conn.sure()
		}
	default:
		k.in(lookEvery, k.awaitWipe)
	}
}

// mayBeWiped reports whether a session may have been lost because it had no connection when its store was wiped. The server
// may have ended a connection before the client read so.
func (k *checker) mayBeWiped(s *session) bool {
	return s.wiped || s.conn.code != 0 && s.conn.gone.Sub(k.wiped) < lastMoments
}

// unavailable reports an answer "unavailable" that comes when the server must have recovered from the wipe. While another
// connection claims the session of c, the server can store no join or leave for c: it may refuse it.
func (c *conn) unavailable(q *request) {
	k := c.k
	contested := c.claimed || c.session != nil && c.session.failed > 0
	if k.opt.Wipe == "" || contested || k.disturbed() || q.granted <= k.restUntil {
		return
	}
	when := "before any disturbance"
	if !k.shaken.IsZero() {
		when = fmt.Sprintf("%v after the latest disturbance", k.now.Sub(k.shaken).Round(time.Millisecond))
	}
	k.found("silent", q.room, []*conn{c}, fmt.Sprintf("%v asked %s and is told that it is unavailable, %s", c, q.kind, when))
}

// tokenless reports whether a connection's token has been due for longer than wait, granted.
func (c *conn) tokenless(wait time.Duration) bool {
	return c.k.speaks.tokens && c.phase == open && c.session == nil && !c.tokenLate && c.k.granted-c.tokenDue > wait
}
