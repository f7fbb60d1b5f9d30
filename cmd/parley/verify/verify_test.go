package verify

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// matrix multiplies the number of seeds for faults and clean runs.
var matrix = flag.Int("matrix", 1, "try this many times as many seeds")

// serving is the set-up of a server under test.
type serving struct {
	limited, beating bool
	workers          int    // 0: one process
	killed           bool   // one after the other
	wiped            bool   // what the bus keeps is
	roomy            bool   // many rooms for few clients
	backends         bool   // they use the API, and clients have tokens
	history          string // the entry of the rooms in the setting, without the pattern
	sends            string // the setting; "": auto
	slow             bool   // a fault that is found by chance: not looked for with -short
}

const roomLimit = 6

// options are those of a short run against a server of its own.
func options(t testing.TB, binary, environment string, s serving) Options {
	t.Helper()
	port := freePort(t)
	o := DefaultOptions()
	o.URL = fmt.Sprintf("ws://127.0.0.1:%d", port)
	o.Clients, o.Rooms, o.Rate, o.For = 120, 15, 600, 3*time.Second
	o.Patience, o.ExactCounts = 10*time.Second, true
	flags := ""
	if s.limited {
		o.RoomLimit = roomLimit
		flags += fmt.Sprintf(" --max-connections-per-room %d", roomLimit)
	}
	if s.beating {
		o.HeartbeatInterval, o.HeartbeatTimeout = 400*time.Millisecond, time.Second
		flags += " --heartbeat-interval 0.4 --heartbeat-timeout 1"
	}
	if s.workers > 0 {
		o.ExactCounts, o.Kill = false, s.killed
		flags += fmt.Sprintf(" --processes %d", s.workers)
	}
	if s.wiped {
		dir := t.TempDir()
		o.Wipe = fmt.Sprintf("rm -rf '%s'/* && kill -9 $VERIFY_BUS", dir)
		flags += fmt.Sprintf(" --data-dir '%s'", dir)
	}
	if s.roomy {
		o.Clients, o.Rooms, o.Rate = 40, 60, 300
	}
	if s.history != "" {
		o.HistoryMessages, o.Rooms = shortHistory, 30 // of which some are small: they are flooded
		if strings.Contains(s.history, "age:1s") {
			o.HistoryAge = shortAge
		}
		flags += fmt.Sprintf(" --receipt-interval 0.3 --history 'verify-**=%s'", s.history)
	}
	if s.sends != "" {
		flags += " --sends " + s.sends
	}
	if s.backends {
		o.API, o.KillAPI = fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), s.killed
	} else {
		flags += " --api-port 0"
	}
	o.Spawn = fmt.Sprintf("env %s %s serve --port %d --admin-port 0 --log-level warn%s", environment, binary, port, flags)
	return o
}

// lastPort counts on from a random place, outside the range from which the kernel chooses ports: two servers of
// concurrent tests must not get the same one.
var lastPort = func() *atomic.Uint32 {
	n := new(atomic.Uint32)
	n.Store(rand.Uint32())
	return n
}()

func freePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := 12_000 + int(lastPort.Add(1)%20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
}

func run(t testing.TB, o Options) *Report {
	t.Helper()
	report, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%v\n%s", err, findings(report))
	}
	return report
}

func findings(r *Report) string {
	if r == nil {
		return ""
	}
	var b strings.Builder
	r.WriteText(&b)
	return b.String()
}

// The checker finds workers by the role in their environment, kills them, and reports what such a server breaks: one
// process, killed and started anew, refuses dials meanwhile and forgets its sessions. All other messages still come once
// and in order.
func TestKillsWorkers(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]serving{"without history": {}, "with history": {history: "messages:20"}} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && with.history != "" {
				t.Skip("each takes many seconds")
			}
			t.Parallel()
			killWorkers(t, with)
		})
	}
}

// killWorkers is TestKillsWorkers of one set-up. Each kill ends the epochs of all rooms.
func killWorkers(t *testing.T, with serving) {
	o := options(t, "", "", with)
	environment := "VERIFY_TEST_PORT=" + o.URL[strings.LastIndexByte(o.URL, ':')+1:]
	if with.history != "" {
		environment += " VERIFY_TEST_HISTORY=" + with.history
	}
	o.Spawn = fmt.Sprintf(`sh -c 'trap "kill \$worker; exit" TERM; while :; do env PARLEY_ROLE=worker %s %s & worker=$!; wait $worker; done'`, environment, os.Args[0])
	o.ExactCounts, o.Kill, o.For, o.Patience = false, true, 6*time.Second, 3*time.Second
	o.Seed = 1
	report := run(t, o)
	for kind := range report.Found {
		if kind != "refused" && kind != "session" {
			t.Errorf("found %s: %s", kind, findings(report))
		}
	}
	if report.Done["killed worker"] == 0 || report.Found["session"] == 0 {
		t.Errorf("no worker was killed, or the sessions that were forgotten are not missed: %s", findings(report))
	}
}

// parallelRuns is the number of concurrent runs, unless -parallel sets it: most of their time they wait for a quiet point.
const parallelRuns = 4

// TestMain is the worker of [TestKillsWorkers] if the environment asks for one.
func TestMain(m *testing.M) {
	port, err := strconv.Atoi(os.Getenv("VERIFY_TEST_PORT"))
	if err != nil {
		flag.Parse()
		told := false
		flag.Visit(func(f *flag.Flag) { told = told || f.Name == "test.parallel" })
		if !told {
			flag.Set("test.parallel", strconv.Itoa(max(parallelRuns, runtime.GOMAXPROCS(0))))
		}
		os.Exit(m.Run())
	}
	config := engine.Config{Port: port}
	if entry := os.Getenv("VERIFY_TEST_HISTORY"); entry != "" {
		config.History = []string{"verify-**=" + entry}
	}
	s, err := engine.New(config)
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}

// The seed alone decides each client's acts, independent of other clients and of timing.
func TestSeedDecides(t *testing.T) {
	draw := func(seed uint64) string {
		o := DefaultOptions()
		o.Seed = seed
		k := newChecker(&o, target{})
		var b strings.Builder
		for _, a := range k.actors[:5] {
			for range 20 {
				fmt.Fprintf(&b, "%s %s\n", a.choose().name, k.drawRoom(a.rng).name[len("verify-000000-"):])
			}
		}
		return b.String()
	}
	if draw(1) != draw(1) || draw(1) == draw(2) {
		t.Error("the same seed decides differently, or another one the same")
	}
}

// A stay that is over remains a possible member while another connection resumes its session, until that connection has
// ended, too: else the checker would miss its leave at every other member for ever.
func TestClaimantEnds(t *testing.T) {
	o := DefaultOptions()
	k := newChecker(&o, target{})
	r := k.rooms[0]
	old := &conn{k: k, actor: k.actors[0], stays: map[*room]*stay{}}
	old.session = &session{conn: old}
	old.stayIn(r, joining).become(in)
	old.session.asking++
	old.await(true)
	old.phase = ended
	k.settle()
	if len(r.members) != 1 {
		t.Error("whose session is being resumed cannot be a member any more")
	}
	old.session.unanswered()
	k.settle()
	if len(r.members) != 0 {
		t.Error("no connection resumes the session any more, and it stays a member")
	}
}

// A client's data is recognised in every way in which a server may write it, and no other data is.
func TestPayloads(t *testing.T) {
	for n := range 4 {
		data := appendPayload(nil, messageName{"a1b2c3", 17, n}, 5)
		if serial, got, ok := payloadNames(data, "a1b2c3"); !ok || serial != 17 || got != n {
			t.Errorf("%s names %d and %d, %v", data, serial, got, ok)
		}
		for _, text := range []string{`{"type":"broadcast","room":"r","from":"x","data":%s,"timestamp":17}`,
			`{"type":"broadcast","room":"r","from":"x","data":%s}`, ` {"data": %s, "from":"x", "room":"\u0072","type":"broadcast","further":{}}`} {
			var b body
			if err := readBody(fmt.Appendf(nil, text, data), &b); err != nil || b.Room != "r" || b.From != "x" || string(b.Payload) != string(data) {
				t.Errorf("%s is read as %+v, %v", text, b, err)
			}
		}
	}
	for _, bad := range []string{`{"verify":"ffffff:1:2"}`, `{"verify":"a1b2c3:1"}`, `{"verify":"a1b2c3:1:x"}`, `7`, `{}`, `{"verify":"a1b2c3:-1:2"}`} {
		if _, _, ok := payloadNames([]byte(bad), "a1b2c3"); ok {
			t.Errorf("%s passes for a message of this run", bad)
		}
	}
}

// Of several errors without a ref, the first belongs to the first nonsense, also if other requests are older.
func TestOldestNonsense(t *testing.T) {
	o := DefaultOptions()
	k := newChecker(&o, target{})
	for range 20 { // the requests are a map
		c := &conn{k: k, actor: k.actors[0], asked: map[string]*request{}, stays: map[*room]*stay{}}
		c.expect(&request{kind: "ping"})
		first := c.expect(&request{kind: "junk", want: []string{"invalid_json"}})
		c.expect(&request{kind: "join", room: k.rooms[0]})
		second := c.expect(&request{kind: "junk", want: []string{"unknown_type"}})
		for _, want := range []*request{first, second} {
			key, q := c.oldest("error")
			if q != want {
				t.Fatalf("an error is taken for the answer to %+v, want %+v", q, want)
			}
			delete(c.asked, key)
		}
		if _, q := c.oldest("error"); q == nil || q.kind != "ping" {
			t.Fatal("no nonsense is left, and the oldest question is not", q)
		}
	}
}

// The leave of a connection that asks to leave and freezes may be read after a quiet point at which all members had got the
// notice: no member misses it then.
func TestLeavesAndFreezes(t *testing.T) {
	o := DefaultOptions()
	k := newChecker(&o, target{})
	r := k.rooms[0]
	member := func(i int) *stay {
		c := &conn{k: k, actor: k.actors[i], stays: map[*room]*stay{}, phase: open}
		s := c.stayIn(r, joining)
		s.become(in)
		return s
	}
	goes := member(0)
	goes.heard[member(1).conn] = true
	stays := member(2)
	goes.become(leaving)
	stays.heard[goes.conn] = false
	for s := range r.members { // of joins, all have heard
		for other := range r.members {
			if s != other && other != goes {
				s.heard[other.conn] = true
			}
		}
	}
	goes.conn.mode = frozen
	k.settle()
	goes.become(out)
	if s, other, what := r.missedNotice(); s != nil {
		t.Errorf("%v misses %s of %v", s.conn, what, other)
	}
}

// A claim that was answered "unavailable" may have taken the session over all the same: its connection may be closed for
// that. A connection whose token has not been shown may not.
func TestClosedAfterAnUnknownClaim(t *testing.T) {
	for _, spoiled := range []bool{false, true} {
		o := DefaultOptions()
		k := newChecker(&o, target{})
		c := &conn{k: k, actor: k.actors[0], phase: open, code: codeTakenOver}
		c.session = &session{conn: c, spoiled: spoiled}
		c.closed()
		if (k.report.Found["ended"] == 0) != spoiled {
			t.Errorf("with a claim whose end is unknown: %v; found is %v", spoiled, k.report.Found)
		}
	}
}
