package supervise

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

var pid = os.Getpid()

// Notifier reports to systemd, if NOTIFY_SOCKET and WATCHDOG_USEC are set. It writes on a goroutine of its own: a manager
// that does not read must not delay the supervisor. The zero value reports nothing. A server of one process has one, too.
//
// Owner: the supervisor's goroutine, or the goroutine that called Begin.
type Notifier struct {
	log      *slog.Logger
	states   chan string   // nil without a service manager
	written  chan struct{} // closed when all states are written
	watchdog time.Duration // the interval of WATCHDOG=1; 0 for never
	nextAt   time.Time
	said     string // the latest STATUS
}

const (
	statesMax  = 16
	notifyWait = time.Second
)

// Begin looks for a service manager. Once.
func (n *Notifier) Begin(log *slog.Logger) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	n.log, n.states, n.written = log, make(chan string, statesMax), make(chan struct{})
	go n.write()
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Error("the service manager's watchdog time cannot be read, so the server sends it no signs of life; correct WATCHDOG_USEC", "err", err)
	}
	n.watchdog = interval / 3
}

func (n *Notifier) write() {
	defer close(n.written)
	failed := false
	for state := range n.states {
		if _, err := daemon.SdNotify(false, state); err != nil && !failed {
			failed = true
			n.log.Error("the service manager cannot be told the state of the server; is NOTIFY_SOCKET right?", "err", err)
		}
	}
}

// End reports "stopped", and waits up to a second until it is written.
func (n *Notifier) End() {
	if n.states == nil {
		return
	}
	n.Status("stopped")
	close(n.states)
	wait := time.NewTimer(notifyWait)
	defer wait.Stop()
	select {
	case <-n.written:
	case <-wait.C:
	}
}

// send drops the state if the manager is too slow.
func (n *Notifier) send(state string) {
	if n.states == nil {
		return
	}
	select {
	case n.states <- state:
	default:
	}
}

// Ready says that the server serves, or that a reload is over.
func (n *Notifier) Ready() { n.send(daemon.SdNotifyReady) }

// Stopping says that the shutdown has begun.
func (n *Notifier) Stopping() { n.send(daemon.SdNotifyStopping) }

// Reloading says that settings are read; Ready ends it.
func (n *Notifier) Reloading() {
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonicMicroseconds()))
}

// Status is the line that systemctl status shows.
func (n *Notifier) Status(text string) {
	if text != n.said {
		n.said = text
		n.send("STATUS=" + text)
	}
}

// Watchdog is how often Alive must be called; 0 without a watchdog.
func (n *Notifier) Watchdog() time.Duration { return n.watchdog }

// Alive feeds the watchdog if that is due at now.
func (n *Notifier) Alive(now time.Time) {
	if n.watchdog > 0 && !now.Before(n.nextAt) {
		n.nextAt = now.Add(n.watchdog)
		n.send(daemon.SdNotifyWatchdog)
	}
}

// report sends the service manager a status, and feeds the watchdog while any worker serves. If none does, the manager
// may restart the server, for no connection is lost by it.
func (s *Supervisor) report(now time.Time) {
	n := &s.notify
	if n.states == nil {
		return
	}
	serving := s.serving()
	switch {
	case s.leaving != nil:
		n.Status("draining")
	case s.reload.busy():
		n.Status("reloading")
	default:
		n.Status(fmt.Sprintf("%d of %d workers ready", serving, len(s.workers)))
	}
	if serving > 0 || s.leaving != nil {
		n.Alive(now)
	}
}
