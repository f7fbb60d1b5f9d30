package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// processes asks for the server's processes.
func (b *backend) processes() (all engine.Processes) {
	b.t.Helper()
	status, answer := b.request(http.MethodGet, "/v1/workers", "Accept", "application/json", "")
	if err := json.Unmarshal([]byte(answer), &all); status != http.StatusOK || err != nil {
		b.t.Fatal(status, answer, err)
	}
	return all
}

// fate reads until a message "end", which gives 0, or the end of the connection, which gives its close code.
func fate(m *bufio.Reader) ws.StatusCode {
	for {
		line, err := m.ReadString('\n')
		var closed wsutil.ClosedError
		switch {
		case errors.As(err, &closed):
			return closed.Code
		case errors.Is(err, ws.ErrProtocolStatusCodeUnknown):
			return engine.StatusRestart // the client's library does not know 1012
		case err != nil:
			return ws.StatusAbnormalClosure
		case strings.Contains(line, `"end"`):
			go io.Copy(io.Discard, m) // so that the client hears of the shutdown
			return 0
		}
	}
}

// A drain sends the clients of one worker away one by one, with 1012; those of the others stay, newcomers are served, and the
// worker is started again. The list of processes shows it.
func TestDrainOverWorkers(t *testing.T) {
	r, b, _ := serveAPI(t, "3")
	const clients = 24
	codes := make(chan ws.StatusCode, clients) // 0: it was not sent away
	for range clients {
		m := r.member("a")
		go func() { codes <- fate(m) }()
	}
	all := b.processes()
	if len(all.Workers) != 3 || all.State != "running" || all.Bus == nil || all.Bus.State != "ready" || all.API == nil || all.API.PID == 0 {
		t.Fatalf("%+v", all)
	}
	drained := all.Workers[1]
	if status, answer := b.post("/v1/drain", `{"worker":1,"within":"2s"}`); status != http.StatusAccepted || answer != "{}" {
		t.Fatal(status, answer)
	}
	r.eventually("it drains", func() bool { return b.processes().Workers[1].State == "draining" })
	if status, answer := b.post("/v1/drain", `{"worker":1}`); status != http.StatusServiceUnavailable {
		t.Error("twice:", status, answer)
	}
	if status, answer := b.post("/v1/drain", `{"worker":3}`); status != http.StatusNotFound {
		t.Error("an unknown worker:", status, answer)
	}
	b.must("/v1/publish", `{"room":"a","data":"meanwhile"}`)
	r.eventually("it is back", func() bool {
		now := b.processes().Workers[1]
		return now.State == "ready" && now.Restarts == 1 && now.PID != drained.PID && now.Cause == "exit code 0"
	})
	b.must("/v1/publish", `{"everybody":true,"message":{"type":"end"}}`)
	ended := 0
	for range clients {
		if code := <-codes; code == engine.StatusRestart {
			ended++
		} else if code != 0 {
			t.Error("closed with", code)
		}
	}
	if ended == 0 || ended == clients {
		t.Errorf("%d of %d clients were sent away", ended, clients)
	}
	go io.Copy(io.Discard, r.member("a"))
	r.stops()
}

// A drain within no time is a drain: clients are told that the worker restarts, and not that the server ends.
func TestDrainAtOnce(t *testing.T) {
	r, b, _ := serveAPI(t, "2")
	const clients = 12
	codes := make(chan ws.StatusCode, clients)
	for range clients {
		m := r.member("a")
		go func() { codes <- fate(m) }()
	}
	if status, answer := b.post("/v1/drain", `{"worker":0,"within":"0s"}`); status != http.StatusAccepted {
		t.Fatal(status, answer)
	}
	r.eventually("it is back", func() bool {
		now := b.processes().Workers[0]
		return now.State == "ready" && now.Restarts == 1 && now.Cause == "exit code 0"
	})
	b.must("/v1/publish", `{"everybody":true,"message":{"type":"end"}}`)
	ended := 0
	for range clients {
		if code := <-codes; code == engine.StatusRestart {
			ended++
		} else if code != 0 {
			t.Error("closed with", code)
		}
	}
	if ended == 0 {
		t.Error("no client was sent away")
	}
	r.stops()
}
