package supervise

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

var pid = os.Getpid()

// notifier talks to systemd, where that has started us: NOTIFY_SOCKET and WATCHDOG_USEC say so. It writes on a
// goroutine of its own: a manager that does not read must not hold up the wards' care.
//
// Owner: the supervisor's goroutine.
type notifier struct {
	log      *slog.Logger
	states   chan string   // nil where nobody listens
	written  chan struct{} // closed when all is written
	watchdog time.Duration // how often to say WATCHDOG=1; 0 for never
	nextAt   time.Time
	said     string // the latest STATUS
}

const (
	statesMax  = 16
	notifyWait = time.Second
)

func (n *notifier) begin(log *slog.Logger) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	n.log, n.states, n.written = log, make(chan string, statesMax), make(chan struct{})
	go n.write()
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Error("read the service manager's watchdog", "err", err)
	}
	n.watchdog = interval / 3
}

func (n *notifier) write() {
	defer close(n.written)
	failed := false
	for state := range n.states {
		if _, err := daemon.SdNotify(false, state); err != nil && !failed {
			failed = true
			n.log.Error("tell the service manager", "err", err)
		}
	}
}

// end says the last, and waits a moment until it is written.
func (n *notifier) end() {
	if n.states == nil {
		return
	}
	n.status("stopped")
	close(n.states)
	wait := time.NewTimer(notifyWait)
	defer wait.Stop()
	select {
	case <-n.written:
	case <-wait.C:
	}
}

// send leaves out what the manager is too slow for.
func (n *notifier) send(state string) {
	if n.states == nil {
		return
	}
	select {
	case n.states <- state:
	default:
	}
}

func (n *notifier) ready()    { n.send(daemon.SdNotifyReady) }
func (n *notifier) stopping() { n.send(daemon.SdNotifyStopping) }

func (n *notifier) reloading() {
	n.send(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonicMicroseconds()))
}

func (n *notifier) status(text string) {
	if text != n.said {
		n.said = text
		n.send("STATUS=" + text)
	}
}

// turn says how things are, and that they are well where they are. The watchdog hears nothing once no worker
// serves: a restart then costs nobody a connection. As long as one does, it would.
func (n *notifier) turn(s *Supervisor, now time.Time) {
	if n.states == nil {
		return
	}
	serving := s.serving()
	switch {
	case s.leaving != nil:
		n.status("draining")
	case s.reload.busy():
		n.status("reloading")
	default:
		n.status(fmt.Sprintf("%d of %d workers ready", serving, len(s.workers)))
	}
	if n.watchdog > 0 && !now.Before(n.nextAt) && (serving > 0 || s.leaving != nil) {
		n.nextAt = now.Add(n.watchdog)
		n.send(daemon.SdNotifyWatchdog)
	}
}
