package cluster

import (
	"context"
	"encoding/json"
	"errors"
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

// join makes the supervisor of a plan tell the overview, and show it to the api process.
func (o *Overview) join(plan *supervise.Plan) {
	plan.Gone = o.gone
	plan.Show = func() (json.RawMessage, error) { return json.Marshal(o.Processes()) }
}

// Addr is where the workers listen.
func (o *Overview) Addr() net.Addr { return addrOf(o.parent.Addrs()[0]) }

// APIAddr is where the API listens; nil without one.
func (o *Overview) APIAddr() net.Addr { return addrOf(o.parent.APIAddr()) }

func addrOf(text string) net.Addr {
	at, err := net.ResolveTCPAddr("tcp", text)
	if text == "" || err != nil {
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
		row, one := memberRow(w)
		for i := range one.Loops {
			one.Loops[i].Worker = w.Index
		}
		total.Add(one)
		total.Workers = append(total.Workers, row)
	}
	total.Rooms = total.RoomsCounted
	total.BusProcess = busRow(status.Bus)
	total.Uptime = int64(time.Since(status.Started).Seconds())
	return total
}

// Processes lists the processes that the supervisor cares for, with their latest figures.
func (o *Overview) Processes() engine.Processes {
	status := o.parent.Status()
	all := engine.Processes{State: status.State, Bus: busRow(status.Bus)}
	for _, w := range status.Workers {
		row, _ := memberRow(w)
		all.Workers = append(all.Workers, row)
	}
	if status.API != nil {
		row, _ := memberRow(*status.API)
		all.API = &row
	}
	return all
}

// memberRow is a worker or the api process, and what it reported last.
func memberRow(w supervise.WardStatus) (row engine.WorkerStats, one engine.Stats) {
	row = rowOf(w)
	if len(w.Stats) == 0 || json.Unmarshal(w.Stats, &one) != nil {
		return row, engine.Stats{}
	}
	row.Connections, row.Rooms, row.Bus, row.Process = one.Connections, one.Rooms, one.Bus, one.Process
	return row, one
}

// busRow is the bus; nil without one.
func busRow(bus *supervise.WardStatus) *engine.WorkerStats {
	if bus == nil {
		return nil
	}
	row := rowOf(*bus)
	row.Instance = 0 // it has no part in what is counted for workers
	var own busReport
	if len(bus.Stats) > 0 && json.Unmarshal(bus.Stats, &own) == nil {
		row.Process, row.Order = &own.Process, own.Order
	}
	return &row
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

// Ready returns why newcomers would be refused: the server is starting or stopping, no worker serves, or one that serves
// lacks the keys to verify them; nil if they would not.
func (o *Overview) Ready(context.Context) error {
	status, serving := o.parent.Status(), 0
	if status.State != "running" {
		return fmt.Errorf("the server is %s", status.State)
	}
	for _, w := range status.Workers {
		if w.State != "ready" {
			continue
		}
		var one engine.Stats
		if err := json.Unmarshal(w.Stats, &one); err != nil {
			return fmt.Errorf("worker %d has not reported its state yet", w.Index)
		}
		if one.Unready != "" {
			return fmt.Errorf("worker %d refuses newcomers: %s", w.Index, one.Unready)
		}
		serving++
	}
	if serving == 0 {
		return errors.New("no worker is ready")
	}
	return nil
}
