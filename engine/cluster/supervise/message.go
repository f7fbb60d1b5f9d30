package supervise

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The supervisor and each ward are connected by a socket pair, and send each other lines of JSON: the supervisor a welcome,
// then peers, reload, drain and answers; a ward ready, then beat, stats, reloaded, draining and questions. Secrets are sent in no other way:
// other users may read the command line and the environment.

// Roles of a process.
const (
	RoleBus    = "bus"
	RoleWorker = "worker"
	RoleAPI    = "api"
)

const beatEvery = 250 * time.Millisecond

// Welcome is the first message to a ward.
//
// Owner: immutable after Join.
type Welcome struct {
	Role     string       `json:"role"`
	Index    int          `json:"index"`          // 0, 1, 2 ...: the same after a restart
	Instance ident.Worker `json:"instance"`       // new for each start of a process
	Term     uint64       `json:"term,omitempty"` // the bus only: higher than that of each earlier bus process; see Supervisor.nextTerm
	// Ended are, for the bus only, the instances of all workers and api processes that have ended since the server started.
	Ended []ident.Worker `json:"ended,omitempty"`
	Bus   Bus            `json:"bus"`
	Peers Peers          `json:"peers"` // a worker is among its own peers
	// Listen are the addresses, and Listeners their sockets: for a worker in the order of Plan.Listen, for the api process
	// that of Plan.API, for the bus none. The workers' sockets are shared: see NewAcceptor for how to use them, and never
	// make them non-blocking.
	Listen    []string   `json:"listen"`
	Listeners []*os.File `json:"-"`

	Settings     json.RawMessage `json:"settings,omitempty"`
	FrozenAfter  time.Duration   `json:"frozen_after"`
	DrainTimeout time.Duration   `json:"drain_timeout"`
}

// Bus has the address of the bus, and the credentials for it.
//
// Owner: the holder.
type Bus struct {
	Address  string `json:"address,omitempty"`  // host:port; for the bus: where to listen, empty to choose
	User     string `json:"user,omitempty"`     // workers: "w" and the instance
	Password string `json:"password,omitempty"` // workers: hex(HMAC-SHA256(secret, user))
	Secret   []byte `json:"secret,omitempty"`   // the bus only
}

// String is for logs: it omits the secrets.
func (b Bus) String() string { return b.User + "@" + b.Address }

// access has the address and the credentials for one worker.
func (b Bus) access(instance ident.Worker) Bus {
	user := fmt.Sprintf("w%d", instance)
	mac := hmac.New(sha256.New, b.Secret)
	mac.Write([]byte(user))
	return Bus{Address: b.Address, User: user, Password: hex.EncodeToString(mac.Sum(nil))}
}

// An Order is a message to a ward after the welcome: Peers, Reload or Drain.
type Order interface{ order() }

// Peers lists the workers that are alive. One that is not listed has been reaped: the kernel has ended it.
//
// Owner: the holder.
type Peers struct {
	Peers []ident.Worker `json:"peers"`         // instances of all workers that run, including those that are starting
	Ready []ident.Worker `json:"ready"`         // those among them that serve
	API   ident.Worker   `json:"api,omitempty"` // the instance of the api process, once it is ready; 0: none
	Bus   ident.Worker   `json:"bus,omitempty"` // the instance of the bus process, once it is ready; 0: none
	Dead  []Death        `json:"dead,omitempty"`
}

// Death is an instance, a worker's or the api process's, that has ended since the last Peers. A welcome has those of the last minute, and older ones for as
// long as no worker has been ready.
type Death struct {
	Instance ident.Worker `json:"instance"`
	At       time.Time    `json:"at"` // when it was reaped, by the wall clock
}

// Reload carries new settings. Answer it with Control.Reloaded.
type Reload struct {
	Settings   json.RawMessage `json:"settings"`
	Generation int             `json:"generation"`
}

// Drain asks the ward to take no new work, to send all clients away, and to end its process. It comes once: from the
// supervisor, by SIGTERM, or because the supervisor is gone. A further one ends Over: see Control.Hurried.
type Drain struct {
	Within   time.Duration `json:"within"`
	Over     time.Duration `json:"over,omitempty"`     // the time before Within, in which clients are sent away one by one; 0: all at once
	Orphaned bool          `json:"orphaned,omitempty"` // the supervisor is gone; Within is 2 s at most, and a second later the process exits
}

func (Peers) order()  {}
func (Reload) order() {}
func (Drain) order()  {}

// command is a line from the supervisor.
//
// Owner: the holder.
type command struct {
	Welcome *Welcome `json:"welcome,omitempty"`
	Peers   *Peers   `json:"peers,omitempty"`
	Reload  *Reload  `json:"reload,omitempty"`
	Drain   *Drain   `json:"drain,omitempty"`
	Answer  *answer  `json:"answer,omitempty"`
}

// report is a line from a ward.
//
// Owner: the holder.
type report struct {
	Ready    *readyReport    `json:"ready,omitempty"`
	Beat     bool            `json:"beat,omitempty"`
	Stats    json.RawMessage `json:"stats,omitempty"`
	Reloaded *reloadReport   `json:"reloaded,omitempty"`
	Draining bool            `json:"draining,omitempty"`
	Question *question       `json:"question,omitempty"`
}

type readyReport struct {
	Address string `json:"address,omitempty"`
}

type reloadReport struct {
	Generation int      `json:"generation"`
	Fixed      []string `json:"fixed,omitempty"` // names of changed settings that need a restart
}

const (
	// lineMax bounds a line, and so a worker's stats, in bytes.
	lineMax = 1 << 20
	// settingsMax leaves space for the rest of a welcome: the peers, and the deaths of the last minute.
	settingsMax = lineMax / 2
)

// line encodes a message. It can fail only for settings or stats of a caller.
func line(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(b, '\n'), err
}
