package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/parleyd/parley/engine"
)

// plan has the properties of a seed's world: each run is extreme in other ways.
//
// Owner: immutable once drawn.
type plan struct {
	config  engine.Config
	clients int
	rooms   int
	steps   int
	wire    int // bytes that a wire holds for a client

	shortWrites, cuts, freezes, meanwhile, garbage, application float64

	refusals float64 // of the connect handler, in one way or another
	hurries  float64 // clients that send before they are admitted, and go on after a refusal
	stalls   float64 // of the whole server, as when it is stopped
	hangups  float64 // clients that go without waiting for their answers
	halves   float64 // requests that are sent in part, and finished late or never

	connectHandler, authHandler bool

	historic  bool // some rooms have history
	histories map[string]engine.HistoryOptions
	heavy     bool // all messages are large
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

func drawPlan(r *rand.Rand, steps int) plan {
	c := engine.DefaultConfig()
	c.Loops = pick(r, 1, 2, 3, 4)
	c.Sends = []string{"ring", "plain"}[c.Loops%2] // so that no seed draws more than before
	c.ReceiptInterval = []time.Duration{10 * time.Second, 50 * time.Millisecond, 500 * time.Millisecond}[c.Loops%3]
	c.HeartbeatInterval = 300 * time.Millisecond
	c.HeartbeatTimeout = pick(r, 700*time.Millisecond, 1500*time.Millisecond)
	c.ReconnectionTTL = pick(r, time.Second, 20*time.Second)
	c.ReconnectionMaxAttempts = pick(r, 2, 5)
	c.MaxConnectionsPerRoom = pick(r, 0, 0, 1, 3)
	c.MaxRoomsPerConnection = pick(r, 0, 0, 1, 2)
	c.AnnounceMembersMax = pick(r, -1, 500, 500)
	c.MessageBytesMax = 4 << 10
	c.BacklogSoftBytes = pick(r, 2<<10, 64<<10)
	c.BacklogHardBytes = pick(r, 4<<10, 128<<10)
	c.BacklogHardBytes = max(c.BacklogHardBytes, c.BacklogSoftBytes)
	c.BacklogGrace = pick(r, 100*time.Millisecond, 10*time.Second)
	c.HandshakeTimeout = time.Second
	c.AuthTimeout = time.Second
	c.OffloadTimeout = pick(r, 200*time.Millisecond, 30*time.Second)
	c.Compression = pick(r, false, true)
	c.CompressionContextTakeover = c.Compression && pick(r, false, false, true)
	if c.ProxyProtocol = pick(r, false, false, true); c.ProxyProtocol {
		c.TrustedProxies = []string{"unix"} // wires have no address
	}
	p := plan{
		config:         c,
		clients:        2 + r.IntN(10),
		rooms:          1 + r.IntN(4),
		steps:          steps,
		wire:           pick(r, 64, 1<<10, 16<<10),
		shortWrites:    pick(r, 0, 0.1, 0.7),
		cuts:           pick(r, 0, 0.01, 0.05),
		freezes:        pick(r, 0, 0.005, 0.02),
		meanwhile:      pick(r, 0, 0.05, 0.4),
		garbage:        pick(r, 0, 0.01, 0.05),
		application:    pick(r, 0, 0.05, 0.2),
		refusals:       pick(r, 0, 0.1, 0.5),
		hurries:        pick(r, 0, 0.1, 0.5),
		halves:         pick(r, 0, 0.1, 0.3),
		stalls:         pick(r, 0, 0.01, 0.05),
		hangups:        pick(r, 0, 0.02, 0.1),
		connectHandler: pick(r, false, true),
		authHandler:    pick(r, false, false, true),
	}
	p.drawHistories(r)
	return p
}

// fleetPlan has the properties of a seed's world of several workers.
//
// Owner: immutable once drawn.
type fleetPlan struct {
	config  engine.Config
	workers int
	clients int
	rooms   int

	meanwhile, cuts, freezes, hangups, application float64

	lag       float64 // share of messages between workers that do not move while time passes
	losses    float64 // share of messages between workers that are lost
	doubles   float64
	severings float64 // of one worker from the bus
	restarts  float64 // of the bus
	kills     float64 // of a worker
	drains    float64
	auth      bool    // connections have grants
	ponders   float64 // share of the policy's decisions that it makes later
	ringBytes int

	storeDelay  time.Duration // each way, at most
	storeBusy   float64       // share of calls that are refused
	storeAway   float64
	storeLosses float64 // of all records
	creates     bool    // the application creates and deletes rooms

	historic        bool // some rooms have history
	histories       map[string]engine.HistoryOptions
	sequencerDeaths float64
	slow            float64 // clients that read nothing for a while
	wire            int     // bytes that the wire of such a client takes
}

func drawFleetPlan(r *rand.Rand) fleetPlan {
	c := engine.DefaultConfig()
	c.Loops = pick(r, 1, 2, 2)
	c.Sends = []string{"ring", "plain"}[c.Loops%2]
	c.ReceiptInterval = []time.Duration{10 * time.Second, 200 * time.Millisecond}[c.Loops%2]
	c.HeartbeatInterval = 400 * time.Millisecond
	c.HeartbeatTimeout = 1500 * time.Millisecond
	c.ReconnectionTTL = pick(r, 3*time.Second, 20*time.Second)
	c.ReconnectionMaxAttempts = pick(r, 2, 50)
	c.AnnounceMembersMax = pick(r, -1, 500, 500)
	c.MessageBytesMax = 4 << 10
	c.MaxConnectionsPerRoom = pick(r, 0, 0, 2, 3)
	c.MaxRoomsPerConnection = pick(r, 0, 0, 1)
	c.HandshakeTimeout = time.Second
	c.AuthTimeout = time.Second
	p := fleetPlan{
		config:      c,
		workers:     2 + r.IntN(4),
		clients:     3 + r.IntN(8),
		rooms:       1 + r.IntN(3),
		meanwhile:   pick(r, 0, 0.05, 0.3),
		cuts:        pick(r, 0, 0.02, 0.05),
		freezes:     pick(r, 0, 0.005, 0.02),
		hangups:     pick(r, 0, 0.02, 0.05),
		application: pick(r, 0, 0.3, 1),
		lag:         pick(r, 0, 0.1, 0.8),
		ringBytes:   pick(r, 4<<10, 64<<10),
	}
	if pick(r, false, true, true) { // otherwise the bus is sound
		p.losses = pick(r, 0, 0.01, 0.2)
		p.doubles = pick(r, 0, 0.05)
		p.severings = pick(r, 0, 0.1)
		p.restarts = pick(r, 0, 0, 0.05)
	}
	p.storeDelay = pick(r, time.Millisecond, 5*time.Millisecond, 100*time.Millisecond)
	if pick(r, false, true) { // otherwise the store is sound
		p.storeBusy = pick(r, 0, 0.05)
		p.storeAway = pick(r, 0, 0.05)
	}
	p.creates = pick(r, false, false, true)
	p.kills = pick(r, 0, 0, 0.05, 0.2)
	p.drains = pick(r, 0, 0, 0.05, 0.2)
	p.auth = pick(r, false, true)
	p.ponders = pick(r, 0, 0.1, 0.5)
	p.storeLosses = pick(r, 0, 0, 0.02, 0.1)
	return p
}

// soundBus reports whether the bus has no faults.
func (p *fleetPlan) soundBus() bool { return p.losses == 0 && p.severings == 0 && p.restarts == 0 }

// soundOrder reports whether messages get their numbers soon.
func (p *fleetPlan) soundOrder() bool { return p.soundBus() && p.lag == 0 && p.sequencerDeaths == 0 }

// sound reports whether only clients cause faults.
func (p *fleetPlan) sound() bool {
	return p.soundBus() && p.storeBusy == 0 && p.storeAway == 0 && p.kills == 0 && p.drains == 0 && p.storeLosses == 0 && (!p.historic || p.soundOrder())
}

// drawHistories gives some rooms a history.
func (p *plan) drawHistories(r *rand.Rand) {
	p.historic = pick(r, false, true, true)
	if !p.historic {
		return
	}
	p.heavy = pick(r, false, false, true)
	p.histories = map[string]engine.HistoryOptions{}
	for i := range p.rooms {
		if i > 0 && r.IntN(3) == 0 {
			continue
		}
		slow := r.IntN(3)
		o := engine.HistoryOptions{Messages: pick(r, 1, 3, 10, 40, 100), Bytes: pick(r, 500, 5000, 100_000, 1_000_000),
			Age: pick(r, 200*time.Millisecond, 3*time.Second, 3*time.Second), Slow: engine.SlowPolicy(slow)}
		name := fmt.Sprint("room ", i)
		p.histories[name] = o
		p.config.History = append(p.config.History, historyEntry(name, o))
	}
}

// historyEntry is an entry of the setting history.
func historyEntry(room string, o engine.HistoryOptions) string {
	return fmt.Sprintf("%s=messages:%d;bytes:%d;age:%v;slow:%s", room, o.Messages, o.Bytes, o.Age,
		[]string{"drop", "disconnect", "conflate"}[o.Slow])
}
