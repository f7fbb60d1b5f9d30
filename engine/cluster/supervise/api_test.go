package supervise

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/ident"
)

// The api process has an instance, a listener of its own and credentials for the bus. It is no worker: no worker counts it
// among its peers, and each knows its instance.
func TestAPI(t *testing.T) {
	t.Parallel()
	p := begin(t, script{Workers: 2, Bus: true, API: "127.0.0.1:0"})
	st := p.running()
	h := heardBy(t, *st.API)
	if h.Welcome.Role != RoleAPI || h.Welcome.Instance == 0 || h.Welcome.Instance != st.API.Instance {
		t.Errorf("the api process was told %+v", h.Welcome)
	}
	if !slices.Equal(h.Welcome.Listen, []string{st.API.Address}) || slices.Contains(st.Listen, st.API.Address) {
		t.Errorf("it listens on %v, and its address is %s", h.Welcome.Listen, st.API.Address)
	}
	if h.Welcome.Bus.Password == "" || h.Welcome.Bus.Address != st.Bus.Address || len(h.Welcome.Bus.Secret) > 0 || h.Secret {
		t.Errorf("it was told of the bus: %+v", h.Welcome.Bus)
	}
	p.until("all know each other", func(st Status) bool {
		for _, w := range append(st.Workers, *st.API) {
			if peers := heardBy(t, w).Peers; peers.API != st.API.Instance || len(peers.Ready) != 2 || slices.Contains(peers.Peers, st.API.Instance) {
				return false
			}
		}
		return true
	})
	d := &dials{address: st.API.Address}
	d.during(time.Second/4, nil)
	d.unhurt(t)
	p.says("[api] api says hello")
}

// The api process is started again however often it ends, and the server serves; no dial is refused meanwhile. The workers
// learn of its death.
func TestAPIEnds(t *testing.T) {
	p := begin(t, script{Workers: 1, API: "127.0.0.1:0"})
	st := p.running()
	first := *st.API
	d := &dials{address: first.Address}
	d.during(3*time.Second, map[time.Duration]func(){
		time.Second / 2: func() { halt(t, first.PID, syscall.SIGKILL) },
	})
	d.unhurt(t)
	st = p.until("it is back", func(st Status) bool { return st.API.State == "ready" && st.API.Restarts == 1 })
	if st.API.Instance == first.Instance || st.API.Address != first.Address {
		t.Errorf("after %+v came %+v", first, st.API)
	}
	p.until("the worker knows", func(st Status) bool {
		h := heardBy(t, st.Workers[0])
		return h.Peers.API == st.API.Instance && slices.ContainsFunc(h.Dead, func(d Death) bool { return d.Instance == first.Instance })
	})
	if st.Workers[0].Restarts != 0 {
		t.Errorf("the worker was started again %d times", st.Workers[0].Restarts)
	}
}

// An api process that cannot start any more does not end a server that serves; one that never could does.
func TestAPICannotStart(t *testing.T) {
	t.Parallel()
	never := begin(t, script{Workers: 1, API: "127.0.0.1:0", Acts: []act{{Role: RoleAPI, How: "exit 1"}}})
	if code := never.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	never.says("api cannot start", "the disk is full")

	later := begin(t, script{Workers: 1, API: "127.0.0.1:0", Acts: []act{{Role: RoleAPI, From: ident.Worker(3), How: "exit 1"}}})
	st := later.running()
	halt(t, st.API.PID, syscall.SIGKILL)
	st = later.until("it has failed more often than a worker may", func(st Status) bool { return st.API.Restarts > failedMax })
	if st.State != "running" || !st.Workers[0].Started.Equal(later.status().Workers[0].Started) {
		t.Errorf("the server: %+v", st)
	}
	later.signal(syscall.SIGTERM)
	if code := later.exit(); code != 0 {
		t.Errorf("after SIGTERM: exit code %d", code)
	}
}
