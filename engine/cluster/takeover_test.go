package cluster_test

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/parleyd/parley/engine"
)

// heir takes the session of c over on another worker, and returns the new connection. kept says whether it is in room "r"
// again.
func (s *serverProcess) heir(c *client) (heir *client, kept bool, err error) {
	for {
		if heir, err = s.connect(""); err != nil {
			return nil, false, err
		}
		if heir.pid != c.pid {
			break
		}
		heir.conn.Close()
	}
	answer, err := heir.ask(fmt.Sprintf(`{"type":"reconnect","token":%q}`, c.token), "reconnected", "error")
	if err == nil && answer["type"] == "error" {
		err = fmt.Errorf("refused with %v", answer["code"])
	}
	var next map[string]any
	if err == nil {
		next, err = heir.await("reconnect_token")
	}
	if err != nil {
		heir.conn.Close()
		return nil, false, err
	}
	heir.token = next["token"].(string)
	list, _ := answer["rooms"].([]any)
	return heir, slices.Contains(list, any("r")), nil
}

// patientSessions may be resumed without a limit of attempts.
func patientSessions(workers, seats int) engine.Config {
	cfg := limited(workers, seats)
	cfg.ReconnectionMaxAttempts = 1 << 20
	return cfg
}

// A room is always full, and clients of all workers wait for its seats: a connection that takes over a member's session on
// another worker has its seat, and no other client ever gets one.
func TestTakeOversKeepTheirSeats(t *testing.T) {
	const limit, queue = 5, 9
	rounds := some(40, 15)
	s := startProcesses(t, patientSessions(3, limit))
	var holders []*client
	for range limit {
		m := s.dialTo(0)
		if code := m.joins("r"); code != "" {
			t.Fatal(code)
		}
		holders = append(holders, m)
	}
	var over atomic.Bool
	var refused atomic.Int64
	var waiting, all sync.WaitGroup
	for range queue {
		m := s.dialTo(0)
		waiting.Go(func() {
			for !over.Load() {
				if code, err := m.tryJoin("r"); err != nil || code != "room_full" {
					t.Errorf("somebody who queues is told %q: %v", code, err)
					return
				}
				refused.Add(1)
			}
		})
	}
	for i, c := range holders {
		all.Go(func() {
			for round := range rounds {
				heir, kept, err := s.heir(c)
				if err != nil || !kept {
					t.Errorf("member %d, round %d: the heir has its seat: %v, %v", i, round, kept, err)
					return
				}
				c.conn.Close()
				c, holders[i] = heir, heir
			}
		})
	}
	all.Wait()
	over.Store(true)
	waiting.Wait()
	for _, c := range holders { // until now they are members
		c.conn.Close()
	}
	t.Logf("%d take-overs, %d joins refused", limit*rounds, refused.Load())
	if refused.Load() < int64(limit*rounds) {
		t.Error("hardly anybody queued: the test shows nothing")
	}
}

// Members' sessions are taken over while workers and the bus are killed: the room never has more members than its limit,
// and a seat that was on its way between two workers is free again within five seconds.
func TestTakeOversUnderKills(t *testing.T) {
	const limit, clients, workers = 12, 40, 3
	joins, handed := int64(some(100, 50)), int64(some(20, 10))
	s := startProcesses(t, patientSessions(workers, limit))
	x := &tally{limit: limit, holders: map[*client]bool{}, buried: map[int]bool{}, heirs: true}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range clients {
		all.Go(func() { x.churn(s, stop) })
	}
	goOn := func() {
		before, over := x.joined.Load(), x.handed.Load()
		poll(t, "clients go on", func() bool { return x.joined.Load() > before+joins && x.handed.Load() > over+handed })
	}
	for round := range some(5, 3) {
		goOn()
		if round == 2 {
			x.kill(s, "bus")
			continue
		}
		x.kill(s, fmt.Sprint("worker ", round%workers))
	}
	goOn()
	close(stop)
	all.Wait()
	t.Logf("%d joins, %d refused, %d taken over, %d at once at most", x.joined.Load(), x.refused.Load(), x.handed.Load(), x.most)
	x.judge(t, s, limit/2) // who is being taken over is not counted
}
