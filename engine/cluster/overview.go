package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// Overview is all workers as one server, as operators see it. Its methods are for any goroutine.
type Overview struct {
	parent *supervise.Supervisor

	mu   sync.Mutex
	past engine.Stats // the counts of workers that have ended
}

// Addr is where the workers listen.
func (o *Overview) Addr() net.Addr {
	at, err := net.ResolveTCPAddr("tcp", o.parent.Addrs()[0])
	if err != nil {
		return nil
	}
	return at
}

// gone keeps the counts of a worker that has ended, so that sums do not decrease. The counts of its last quarter of a
// second are lost.
func (o *Overview) gone(w supervise.WardStatus) {
	var one engine.Stats
	if len(w.Stats) == 0 || json.Unmarshal(w.Stats, &one) != nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.past.AddCounts(one)
}

// Stats adds up the latest reports of the workers, no older than half a second, and lists the workers. A room with
// members on several workers is counted once. Counts include workers that have ended; the uptime is the supervisor's.
func (o *Overview) Stats() engine.Stats {
	status := o.parent.Status()
	total := engine.Stats{Ended: map[string]uint64{}}
	o.mu.Lock()
	total.AddCounts(o.past)
	o.mu.Unlock()
	for _, w := range status.Workers {
		row := rowOf(w)
		var one engine.Stats
		if len(w.Stats) > 0 && json.Unmarshal(w.Stats, &one) == nil {
			for i := range one.Loops {
				one.Loops[i].Worker = w.Index
			}
			total.Add(one)
			row.Connections, row.Rooms, row.Bus, row.Process = one.Connections, one.Rooms, one.Bus, one.Process
		}
		total.Workers = append(total.Workers, row)
	}
	total.Rooms = total.RoomsCounted
	if status.Bus != nil {
		row := rowOf(*status.Bus)
		var own busReport
		if len(status.Bus.Stats) > 0 && json.Unmarshal(status.Bus.Stats, &own) == nil {
			row.Process = &own.Process
		}
		total.BusProcess = &row
	}
	total.Uptime = int64(time.Since(status.Started).Seconds())
	return total
}

func rowOf(w supervise.WardStatus) engine.WorkerStats {
	row := engine.WorkerStats{Index: w.Index, Instance: w.Instance.Instance(), PID: w.PID, State: w.State,
		Restarts: w.Restarts, Cause: w.Cause}
	if !w.Started.IsZero() {
		row.StartedAt = w.Started.Unix()
	}
	return row
}

// Degraded names a worker that cannot reach the bus, or cannot keep sessions and give out seats, and the reason; empty if
// there is none.
func (o *Overview) Degraded() string {
	for _, w := range o.parent.Status().Workers {
		var one engine.Stats
		if len(w.Stats) == 0 || json.Unmarshal(w.Stats, &one) != nil || one.Bus == nil {
			continue
		}
		switch {
		case !one.Bus.Up:
			return fmt.Sprintf("worker %d does not reach the bus: sessions, limited rooms and messages of other workers must wait", w.Index)
		case one.Bus.Unkept != "":
			return fmt.Sprintf("worker %d cannot keep sessions and give out seats: %s", w.Index, one.Bus.Unkept)
		}
	}
	return ""
}

// Healthy returns an error that names a worker that does not serve; nil if all do.
func (o *Overview) Healthy(context.Context) error {
	for _, w := range o.parent.Status().Workers {
		if w.State != "ready" {
			return fmt.Errorf("worker %d is not ready: %s", w.Index, w.State)
		}
	}
	return nil
}
