package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// Overview is all workers as one server, as operators see it. Its methods are for any goroutine.
type Overview struct{ parent *supervise.Supervisor }

// Addr is where the workers listen.
func (o *Overview) Addr() net.Addr {
	at, err := net.ResolveTCPAddr("tcp", o.parent.Addrs()[0])
	if err != nil {
		return nil
	}
	return at
}

// Stats adds up what the workers have said last, no older than half a second, and lists them. A room with members on
// several workers is counted once.
func (o *Overview) Stats() engine.Stats {
	status := o.parent.Status()
	total := engine.Stats{Ended: map[string]uint64{}}
	for _, w := range status.Workers {
		row := engine.WorkerStats{Index: w.Index, Instance: w.Instance, PID: w.PID, State: w.State,
			Restarts: w.Restarts, Cause: w.Cause}
		if !w.Started.IsZero() {
			row.StartedAt = w.Started.Unix()
		}
		var one engine.Stats
		if len(w.Stats) > 0 && json.Unmarshal(w.Stats, &one) == nil {
			total.Add(one)
			row.Connections, row.Rooms = one.Connections, one.Rooms
		}
		total.Workers = append(total.Workers, row)
	}
	total.Rooms = total.RoomsCounted
	return total
}

// Healthy reports which worker does not serve; nil where all do.
func (o *Overview) Healthy(context.Context) error {
	for _, w := range o.parent.Status().Workers {
		if w.State != "ready" {
			return fmt.Errorf("worker %d is not ready: %s", w.Index, w.State)
		}
	}
	return nil
}
