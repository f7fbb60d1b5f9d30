package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// Operator shows the server's processes to the process of the API, and drains workers. Its methods block; any goroutine.
type Operator struct {
	srv     *engine.Server
	control *supervise.Control // nil where there is one process
}

// Alone is the operator of a server that [Run] does not run: its program is the only process.
func Alone(srv *engine.Server) *Operator { return &Operator{srv: srv} }

// Processes are the server's processes. Where there is one, it is worker 0. Errors: [engine.ErrUnavailable].
func (o *Operator) Processes(ctx context.Context) (all engine.Processes, err error) {
	if o.control == nil {
		return o.alone(), nil
	}
	shown, err := o.control.Overview(ctx)
	if err == nil {
		err = json.Unmarshal(shown, &all)
	}
	if err != nil {
		return all, fmt.Errorf("%w: %w", engine.ErrUnavailable, err)
	}
	return all, nil
}

// began is when this process was started.
var began = time.Now()

// alone is the only process, which is worker 0.
func (o *Operator) alone() engine.Processes {
	s := o.srv.StatsHere()
	own := ownProcess()
	return engine.Processes{State: "running", Workers: []engine.WorkerStats{{Instance: o.srv.Worker().Link.Self.Instance(), PID: os.Getpid(), State: "ready",
		StartedAt: began.Unix(), Connections: s.Connections, Rooms: s.Rooms, Process: &own}}}
}

// Drain makes a worker send its clients away one by one, over a time, and end; it is started again. It returns once the worker
// has been told. Errors: [engine.ErrWorkerUnknown]; [engine.ErrUnavailable], with the reason.
func (o *Operator) Drain(ctx context.Context, worker int, over time.Duration) error {
	if o.control == nil {
		return fmt.Errorf("%w: the server is one process; send it SIGTERM to stop it", engine.ErrWorkerUnknown)
	}
	err := o.control.DrainWorker(ctx, worker, over)
	switch {
	case errors.Is(err, supervise.ErrWorkerUnknown):
		return engine.ErrWorkerUnknown
	case err != nil:
		return fmt.Errorf("%w: %w", engine.ErrUnavailable, err)
	}
	return nil
}
