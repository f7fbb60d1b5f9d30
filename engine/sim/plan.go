package sim

import (
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
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

func drawPlan(r *rand.Rand, steps int) plan {
	c := engine.DefaultConfig()
	c.Loops = pick(r, 1, 2, 3, 4)
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
	return plan{
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
}
