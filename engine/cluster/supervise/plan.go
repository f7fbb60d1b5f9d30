package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/parleyd/parley/engine/logs"
)

// Plan has the settings of a supervisor. A zero duration means its default.
//
// Owner: immutable after New.
type Plan struct {
	// Listen names the addresses, as host:port. Port 0 lets the kernel choose: see Supervisor.Addrs.
	Listen []string
	// API is the address that the api process listens on, as host:port. Empty: there is no such process.
	API string
	// Workers is how many workers there are, at least 1.
	Workers int
	// Bus asks for a bus process, which is ready before the first worker starts.
	Bus bool
	// BusSilent says that the bus process listens nowhere: the bus itself is another server's. Then it reports no address.
	BusSilent bool
	// BusAddress is where the bus must listen, as host:port. Empty: the bus chooses an address at its first start, reports
	// it with Control.Ready, and keeps it after restarts.
	BusAddress string
	// Settings are passed to every ward in its welcome, unchanged.
	Settings json.RawMessage
	// Reload is called on SIGHUP, on a goroutine of its own, and returns the new settings. An error leaves the
	// old ones in force. Nil: SIGHUP changes nothing, and is logged.
	Reload func() (json.RawMessage, error)
	// Ready is called once, on the supervisor's goroutine, when every ward is ready. It must not block.
	Ready func(Status)
	// Gone is called on the supervisor's goroutine when a worker has been reaped, with the figures that it reported last,
	// or nil. It must not block.
	Gone func(WardStatus)
	// Show is called when the api process asks for an overview, on a goroutine of its own; its result is JSON of at most
	// half a megabyte. Nil: the answer is empty.
	Show func() (json.RawMessage, error)
	// FirstInstance is the first process's instance, 0 for a random one. Later ones count up and skip 0. The bus starts first.
	FirstInstance uint16

	// StartTimeout is how long a ward may take until it is ready: 30 s.
	StartTimeout time.Duration
	// FrozenAfter is the silence after which a ward is killed and replaced: 3 s. Time in which the supervisor
	// itself did not run does not count.
	FrozenAfter time.Duration
	// DrainTimeout is how long workers may take to send all clients away: 10 s. The shutdown takes 3 s more at most.
	DrainTimeout time.Duration

	// Log is the supervisor's log; nil means slog's default. Its handler may block: records wait for it in a bounded queue.
	Log *slog.Logger
	// Stdout and Stderr take the wards' output, line by line; nil means the supervisor's own. They may block: up to 1 MiB
	// waits for each. Further lines are dropped, and their number is logged.
	Stdout, Stderr io.Writer
}

const (
	startTimeout = 30 * time.Second
	frozenAfter  = 3 * time.Second
	drainTimeout = 10 * time.Second
)

func (p Plan) withDefaults() (Plan, error) {
	if p.Workers < 1 {
		return p, fmt.Errorf("plan workers: %d is too few; give at least 1", p.Workers)
	}
	if p.Workers > workersMax {
		return p, fmt.Errorf("plan workers: %d are too many; give at most %d", p.Workers, workersMax)
	}
	if len(p.Listen) == 0 {
		return p, errors.New("plan workers: there is no address to listen on; give at least one")
	}
	if err := checkSettings(p.Settings); err != nil {
		return p, fmt.Errorf("plan workers: %w", err)
	}
	p.StartTimeout = orDefault(p.StartTimeout, startTimeout)
	p.FrozenAfter = orDefault(p.FrozenAfter, frozenAfter)
	p.DrainTimeout = orDefault(p.DrainTimeout, drainTimeout)
	if p.FrozenAfter < 2*beatEvery {
		return p, fmt.Errorf("plan workers: frozen after %v is less than two beats; give at least %v", p.FrozenAfter, 2*beatEvery)
	}
	if p.Log == nil {
		p.Log = slog.Default()
	}
	p.Log = logs.Queued(p.Log) // the goroutine of Run must not wait for the reader of the log
	if p.Stdout == nil {
		p.Stdout = os.Stdout
	}
	if p.Stderr == nil {
		p.Stderr = os.Stderr
	}
	return p, nil
}

const workersMax = 1024

// checkSettings refuses settings that are too large for a welcome: a ward takes a line that is too long for the
// supervisor's end.
func checkSettings(raw json.RawMessage) error {
	switch {
	case len(raw) > settingsMax:
		return fmt.Errorf("the settings are too large: %d bytes are more than %d", len(raw), settingsMax)
	case len(raw) > 0 && !json.Valid(raw):
		return errors.New("the settings are no JSON")
	}
	return nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Failure is the error of Run when a ward cannot start.
//
// Owner: the caller.
type Failure struct {
	Role   string   // RoleBus, RoleWorker or RoleAPI
	Index  int      // the worker's
	Cause  string   // "exit code 1", "signal 9 (killed)", "not ready after 30s"
	Starts int      // how many starts failed in a row
	Output []string // the last lines of its stderr
	Code   int      // for the supervisor's own exit
}

// Error says which ward could not start and why, with the last lines of its output.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s cannot start: %s", title(f.Role, f.Index), f.Cause)
	if f.Code == exitConfiguration {
		b.WriteString(", which says that its configuration is wrong")
	} else {
		fmt.Fprintf(&b, ", %d times in a row", f.Starts)
	}
	if len(f.Output) == 0 {
		b.WriteString("; it left no output")
		return b.String()
	}
	b.WriteString("; its last output:")
	for _, line := range f.Output {
		b.WriteString("\n  " + line)
	}
	return b.String()
}

// title names a ward in messages.
func title(role string, index int) string {
	if role == RoleWorker {
		return fmt.Sprintf("worker %d", index)
	}
	return role
}

// Errors of Run besides *Failure.
var (
	// ErrStopped is returned after a second SIGTERM or SIGINT, SecondSignalAfter the first or later: the wards were killed
	// before they had sent their clients away.
	ErrStopped = errors.New("stopped at once by a second signal")
	// ErrInstances is returned when every instance has been used once.
	ErrInstances = errors.New("65535 processes have been started, and no instance is left; start the server again")
)

const (
	exitFailed        = 1
	exitConfiguration = 2
)

// ExitCode is the exit code of a process after Run returned err: 0 for nil, 2 for a wrong configuration,
// 1 otherwise.
func ExitCode(err error) int {
	var f *Failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return f.Code
	}
	return exitFailed
}
