package cluster_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/parleyd/parley/engine"
)

// natsServer is a NATS server as an operator runs it: with an account of its own for each of two servers, and one
// without JetStream.
type natsServer struct {
	*server.Server
	t       testing.TB
	port    int
	dir     string
	payload int32
}

const natsAccounts = `
MAY: ["p.>", "q.>", "a.>", "o.>", "r.>", "ledger.>", "$KV.>", "$JS.>", "_INBOX.>"]
accounts {
  ONE: {jetstream: enabled, users: [{user: one, password: word}]}
  TWO: {jetstream: enabled, users: [{user: two, password: word}]}
  BARE: {users: [{user: bare, password: word}]}
  LEAST: {jetstream: enabled, users: [{user: least, password: word, permissions: {publish: $MAY, subscribe: $MAY}}]}
}`

func startNATS(t testing.TB, payload int32) *natsServer {
	t.Helper()
	n := &natsServer{t: t, port: server.RANDOM_PORT, dir: t.TempDir(), payload: payload}
	n.start()
	t.Cleanup(func() { n.Shutdown(); n.WaitForShutdown() })
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	o := &server.Options{}
	if err := o.ProcessConfigString(natsAccounts); err != nil {
		n.t.Fatal(err)
	}
	o.Host, o.Port, o.JetStream, o.StoreDir, o.NoSigs, o.NoLog, o.MaxPayload = "127.0.0.1", n.port, true, n.dir, true, true, n.payload
	s, err := server.NewServer(o)
	if err != nil {
		n.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(patient) {
		n.t.Fatal("the NATS server does not start")
	}
	n.Server = s
	if _, err := fmt.Sscanf(s.ClientURL(), "nats://127.0.0.1:%d", &n.port); err != nil {
		n.t.Fatal(err)
	}
}

func (n *natsServer) url(user string) string {
	return fmt.Sprintf("nats://%s:word@127.0.0.1:%d", user, n.port)
}

// Workers are one server also over an external NATS server, which may go away and come back.
func TestExternalBus(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("one")})
	if b := s.ward("bus"); b.Address != "" {
		t.Errorf("the bus process, which has only the sequencer, listens on %q", b.Address)
	}
	a := s.dial("")
	b := s.dialAt("", a.pid)
	for _, c := range []*client{a, b} {
		c.join("r")
	}
	told := func(text string) {
		t.Helper()
		a.send(engine.M{"type": "broadcast", "room": "r", "data": text})
		if m := b.until("broadcast"); m["data"] != text {
			t.Errorf("the other worker's member reads %v, want %q", m, text)
		}
	}
	told("first")

	b.keep("kept")
	b.conn.Close()
	heir := s.dialAt("", b.pid)
	heir.expectResumed(b, "kept", "r")
	b = heir

	n.Shutdown()
	n.WaitForShutdown()
	n.start()
	poll(t, "sessions are given out again", func() bool {
		c := s.dial("")
		if m := c.resume(b.token); m["type"] != "reconnected" {
			c.conn.Close()
			return false
		}
		b = c
		return true
	})
	c := s.dialAt("", b.pid)
	c.join("r")
	a = c
	told("second")

	// The next server finds the records of this one.
	b.keep("over a restart")
	token := b.token
	s.end(syscall.SIGTERM)
	file := filepath.Join(t.TempDir(), "credentials") // and this time the URL does not say who it is
	if err := os.WriteFile(file, []byte("one:word\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = startProcesses(t, engine.Config{Processes: 2, BusURL: strings.Replace(n.url("one"), "one:word@", "", 1), BusCredentials: file})
	if m := s.dial("").resume(token); m["type"] != "reconnected" {
		t.Errorf("after a restart of the server: %v", m)
	}
}

// A user who may do no more than docs/processes.md says is enough.
func TestExternalBusPermissions(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 1<<20)
	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("least"), MaxConnectionsPerRoom: 10})
	a := s.dial("")
	b := s.dialAt("", a.pid)
	for _, c := range []*client{a, b} {
		c.join("r")
	}
	a.send(engine.M{"type": "broadcast", "room": "r", "data": "x"})
	b.until("broadcast")
	b.keep("kept")
	b.conn.Close()
	s.dialAt("", b.pid).expectResumed(b, "kept", "r")
	poll(t, "the workers follow the sequencer", func() bool { return s.sequencerStats().Followers == 2 })
	if out := s.output(); strings.Contains(strings.ToLower(out), "permissions violation") {
		t.Errorf("something else is tried:\n%s", out)
	}
}

// An external bus that cannot be used is an error before any process is started, without the password.
func TestExternalBusRefused(t *testing.T) {
	t.Parallel()
	n := startNATS(t, 256<<10)
	startsWith := func(cfg engine.Config, want ...string) {
		t.Helper()
		cfg.Processes = 2
		s := beginProcesses(t, cfg)
		select {
		case <-s.ended:
		case <-time.After(patient):
			t.Fatalf("it runs, want an end with %q", want)
		}
		for _, w := range append(want, "bus_") {
			if !strings.Contains(s.output(), w) {
				t.Errorf("it says:\n%s\nwant %q", s.output(), w)
			}
		}
		if strings.Contains(s.output(), ":word@") {
			t.Errorf("it says the password:\n%s", s.output())
		}
		if code := s.cmd.ProcessState.ExitCode(); code != 2 {
			t.Errorf("it ends with %d, want 2", code)
		}
	}
	startsWith(engine.Config{BusURL: n.url("one")}, "max_payload")
	n.Shutdown()
	n.WaitForShutdown()
	n.payload = 1 << 20
	n.start()
	startsWith(engine.Config{BusURL: n.url("bare")}, "JetStream")
	startsWith(engine.Config{BusURL: n.url("stranger")}, "uthorization")
	startsWith(engine.Config{BusURL: "nats://127.0.0.1:1", BusCredentials: filepath.Join(t.TempDir(), "none")}, "bus_credentials", "no such file", "let this user read it")

	s := startProcesses(t, engine.Config{Processes: 2, BusURL: n.url("two")})
	startsWith(engine.Config{BusURL: n.url("two")}, "another server uses this account")
	s.dial("").join("r") // the first is none the worse for it
}
