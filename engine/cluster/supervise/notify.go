package supervise

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

var pid = os.Getpid()

// notifier talks to systemd, where that has started us: NOTIFY_SOCKET and WATCHDOG_USEC say so.
//
// Owner: the supervisor's goroutine.
type notifier struct {
	log      *slog.Logger
	on       bool
	watchdog time.Duration // how often to say WATCHDOG=1; 0 for never
	nextAt   time.Time
	said     string // the latest STATUS
	failed   bool
}

func (n *notifier) begin(log *slog.Logger) {
	n.log, n.on = log, os.Getenv("NOTIFY_SOCKET") != ""
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Error("read the service manager's watchdog", "err", err)
	}
	n.watchdog = interval / 3
}

func (n *notifier) send(state string) {
	if !n.on {
		return
	}
	if _, err := daemon.SdNotify(false, state); err != nil && !n.failed {
		n.failed = true
		n.log.Error("tell the service manager", "err", err)
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
	if !n.on {
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
