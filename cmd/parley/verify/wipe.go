package verify

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

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
