package verify

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// Options are the settings of a run.
//
// Owner: immutable once [Run] has begun.
type Options struct {
	URL     string        // ws://host:port/path
	Seed    uint64        // of the clients' acts; 0 draws one
	Clients int           // connections that are kept up
	Rooms   int           // rooms that they share, of mixed sizes
	Rate    int           // acts per second, over all clients
	For     time.Duration // how long the clients act; the last quiet point takes longer

	Dialect   string // the server's protocol: "parley" or "plain"
	RoomLimit int    // the server's limit of members in a room; 0: none
	// ExactCounts means that one process serves: counts are exact at every moment, and no member gets messages older than
	// its join. Without it, counts must be exact only at quiet points.
	ExactCounts       bool
	HeartbeatInterval time.Duration // the server's; 0: heartbeats are not checked
	HeartbeatTimeout  time.Duration
	AnnounceMax       int           // the size up to which the server announces members; 0: announcements are not checked for completeness
	Patience          time.Duration // how long an answer or a delivery may take
	StopAtFinding     bool          // end with the first finding

	// HistoryMessages means that the rooms have a history of so many messages; 0: they have none.
	HistoryMessages int
	HistoryAge      time.Duration // of a message that is kept
	HistoryBytes    int           // that a room keeps

	API        string // http://host:port of the server's HTTP API; empty: it is not used
	APIKeyFile string // has a key of the API with all scopes; empty: one is made for the server that Spawn starts
	SecretFile string // has the secret of the server's tokens; empty: one is made for the server that Spawn starts

	Spawn   string // a command that starts the server
	Kill    bool   // kill and freeze its workers
	KillBus bool   // and its bus
	KillAPI bool   // and its api process
	Wipe    string // a command that empties the server's store of sessions and seats; empty: none

	Progress io.Writer // gets a line now and then; nil: none
	Terminal bool      // Progress is a terminal: a line every second
}

// DefaultOptions are the options of `parley verify URL`.
func DefaultOptions() Options {
	return Options{Clients: 1000, Rooms: 40, Rate: 1000, For: 30 * time.Second, Dialect: "parley",
		AnnounceMax: 500, Patience: 5 * time.Second, HistoryAge: history.Age, HistoryBytes: history.Bytes}
}

// check reports the first option that cannot work, as a sentence for the user.
func (o *Options) check() error {
	switch {
	case o.Clients < 2:
		return fmt.Errorf("clients: %d are too few to tell each other anything; give at least 2", o.Clients)
	case o.Rooms < 1:
		return fmt.Errorf("rooms: %d is none; give at least 1", o.Rooms)
	case o.Rate < 1:
		return fmt.Errorf("rate: %d acts a second do nothing; give at least 1", o.Rate)
	case o.For <= 0:
		return fmt.Errorf("for: %v is no time; give 30s", o.For)
	case o.Patience < 100*time.Millisecond:
		return fmt.Errorf("patience: %v is too short for any network; give at least 100ms", o.Patience)
	case o.HeartbeatTimeout != 0 && o.HeartbeatTimeout <= o.HeartbeatInterval:
		return fmt.Errorf("heartbeat-timeout: %v must exceed heartbeat-interval (%v), as on the server", o.HeartbeatTimeout, o.HeartbeatInterval)
	case o.RoomLimit < 0 || o.AnnounceMax < 0:
		return fmt.Errorf("room-limit and announce-members-max cannot be negative; 0 means none")
	case (o.Kill || o.KillBus || o.KillAPI) && o.Spawn == "":
		return fmt.Errorf("kill: only a server that was started by --spawn is killed; give --spawn \"parley serve --processes 4 ...\"")
	case o.API == "" && (o.KillAPI || o.APIKeyFile != "" || o.SecretFile != ""):
		return fmt.Errorf("api: kill-api, api-key-file and jwt-secret-file are for runs with the API; give --api http://127.0.0.1:9092")
	case o.API != "" && o.Spawn == "" && o.APIKeyFile == "":
		return fmt.Errorf("api-key-file: name the file of a key with all scopes; parley key create makes one")
	case o.API != "" && o.Dialect != "parley":
		return fmt.Errorf("api: only the dialect parley has one")
	}
	if err := o.checkHistory(); err != nil {
		return err
	}
	if dialects[o.Dialect] == nil {
		return fmt.Errorf("dialect: %q is not known; give parley or plain", o.Dialect)
	}
	_, err := parseTarget(o.URL)
	return err
}

func (o *Options) checkHistory() error {
	switch d := DefaultOptions(); {
	case o.HistoryMessages < 0 || o.HistoryAge <= 0 || o.HistoryBytes <= 0:
		return fmt.Errorf("history: messages, age and bytes cannot be negative; name those of the server's setting history")
	case o.HistoryMessages == 0 && (o.HistoryAge != d.HistoryAge || o.HistoryBytes != d.HistoryBytes):
		return fmt.Errorf("history-messages: history-age and history-bytes are for rooms with history; give --history-messages 100, as on the server")
	case o.HistoryMessages > 0 && o.Dialect != "parley":
		return fmt.Errorf("history-messages: only the dialect parley has rooms with history")
	}
	return nil
}

// target is the server's address.
type target struct {
	addr *net.TCPAddr
	host string // for the Host header
	path string
}

// parseTarget takes a URL apart and resolves its host.
func parseTarget(text string) (target, error) {
	u, err := url.Parse(text)
	if err != nil {
		return target{}, fmt.Errorf("url: %w; give one like ws://127.0.0.1:9090", err)
	}
	if u.Scheme == "wss" {
		return target{}, fmt.Errorf("url: TLS is not spoken; point at the server behind the proxy, with ws://")
	}
	if u.Scheme != "ws" || u.Host == "" {
		return target{}, fmt.Errorf("url: %q is no address of a WebSocket server; give one like ws://127.0.0.1:9090", text)
	}
	port := u.Port()
	if port == "" {
		port = "80"
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return target{}, fmt.Errorf("url: %w", err)
	}
	if addr.IP == nil {
		addr.IP = net.IPv4(127, 0, 0, 1)
	}
	return target{addr: addr, host: u.Host, path: u.RequestURI()}, nil
}

// command is the command line that repeats a run.
func (o *Options) command() string {
	d := DefaultOptions()
	line := "parley verify"
	add := func(set bool, flag, value string) {
		if set {
			line += " --" + flag + value
		}
	}
	add(true, "seed", " "+strconv.FormatUint(o.Seed, 10))
	add(o.Clients != d.Clients, "clients", " "+strconv.Itoa(o.Clients))
	add(o.Rooms != d.Rooms, "rooms", " "+strconv.Itoa(o.Rooms))
	add(o.Rate != d.Rate, "rate", " "+strconv.Itoa(o.Rate))
	add(o.For != d.For, "for", " "+o.For.String())
	add(o.Dialect != d.Dialect, "dialect", " "+o.Dialect)
	add(o.RoomLimit != 0, "room-limit", " "+strconv.Itoa(o.RoomLimit))
	add(o.ExactCounts, "exact-counts", "")
	add(o.HeartbeatInterval != 0, "heartbeat-interval", " "+o.HeartbeatInterval.String())
	add(o.HeartbeatTimeout != 0, "heartbeat-timeout", " "+o.HeartbeatTimeout.String())
	add(o.AnnounceMax != d.AnnounceMax, "announce-members-max", " "+strconv.Itoa(o.AnnounceMax))
	add(o.Patience != d.Patience, "patience", " "+o.Patience.String())
	add(o.Spawn != "", "spawn", " "+strconv.Quote(o.Spawn))
	add(o.Kill, "kill", "")
	add(o.KillBus, "kill-bus", "")
	add(o.HistoryMessages != 0, "history-messages", " "+strconv.Itoa(o.HistoryMessages))
	add(o.HistoryAge != d.HistoryAge, "history-age", " "+o.HistoryAge.String())
	add(o.HistoryBytes != d.HistoryBytes, "history-bytes", " "+strconv.Itoa(o.HistoryBytes))
	add(o.API != "", "api", " "+o.API)
	add(o.APIKeyFile != "", "api-key-file", " "+o.APIKeyFile)
	add(o.SecretFile != "", "jwt-secret-file", " "+o.SecretFile)
	add(o.KillAPI, "kill-api", "")
	add(o.Wipe != "", "wipe", " "+strconv.Quote(o.Wipe))
	return line + " " + o.URL
}
