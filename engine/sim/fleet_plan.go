package sim

import (
	"math/rand/v2"
	"time"

	"github.com/parleyd/parley/engine"
)

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
	ringBytes int

	storeDelay time.Duration // each way, at most
	storeBusy  float64       // share of calls that are refused
	storeAway  float64
	creates    bool // the application creates and deletes rooms
}

func drawFleetPlan(r *rand.Rand) fleetPlan {
	c := engine.DefaultConfig()
	c.Loops = pick(r, 1, 2, 2)
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
	return p
}

// soundBus reports whether the bus has no faults.
func (p *fleetPlan) soundBus() bool { return p.losses == 0 && p.severings == 0 && p.restarts == 0 }

// sound reports whether only clients cause faults.
func (p *fleetPlan) sound() bool {
	return p.soundBus() && p.storeBusy == 0 && p.storeAway == 0 && p.kills == 0
}
