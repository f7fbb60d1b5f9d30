//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/bench/load"
)

// apiServer is a server with an HTTP API, a socket, and one member; deliver is its fault.
type apiServer struct {
	mu      sync.Mutex
	member  net.Conn
	got     int
	deliver func(s *apiServer, n int, frame []byte) bool
	refuses int // the publish that it refuses; 0: none
	closes  ws.StatusCode
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/":
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		s.attend(conn)
	case "/v1/socket":
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			text, err := wsutil.ReadClientText(conn)
			answer := `{"ref":1,"result":{}}`
			if err == nil && !s.publish(text) {
				answer = `{"ref":1,"problem":{}}`
			}
			if err != nil || wsutil.WriteServerText(conn, []byte(answer)) != nil {
				return
			}
		}
	case "/v1/tokens/revoke":
		s.mu.Lock()
		defer s.mu.Unlock()
		ws.WriteFrame(s.member, ws.NewCloseFrame(ws.NewCloseFrameBody(s.closes, "")))
		w.Write([]byte("{}"))
	default:
		body, _ := io.ReadAll(r.Body)
		if !s.publish(body) {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Write(bytes.Repeat([]byte("{}"), len(body)/8)) // a long answer is in chunks
	}
}

// attend makes a connection the member.
func (s *apiServer) attend(conn net.Conn) {
	for {
		if _, err := wsutil.ReadClientText(conn); err != nil {
			return
		}
		s.mu.Lock()
		s.member = conn
		wsutil.WriteServerText(conn, []byte(`{"type":"joined"}`))
		s.mu.Unlock()
	}
}

// publish delivers every message of a body.
func (s *apiServer) publish(body []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for part := range strings.SplitSeq(string(body), `"bench_n":"`) {
		if strings.HasPrefix(part, "{") {
			continue // before the first
		}
		s.got++
		if s.got == s.refuses {
			return false
		}
		frame, _ := ws.CompileFrame(ws.NewTextFrame(fmt.Appendf(nil, `{"type":"broadcast","data":{"bench_n":"%s"}}`, part[:10])))
		if !s.deliver(s, s.got, frame) {
			s.member.Close()
		}
	}
	return true
}

func publishesPlan(addr string, backends, batch int) load.Plan {
	p := apiPlan(backends, batch, 0)
	p.Addr, p.API, p.PID, p.Warmup, p.Measure = addr, addr, os.Getpid(), 20*time.Millisecond, 100*time.Millisecond
	return p
}

// Publishes over HTTP, in batches and on a socket reach the member, and are counted once they were answered, too. A server that
// loses, doubles, swaps or refuses one of them voids the run.
func TestPublishes(t *testing.T) {
	var held []byte
	send := func(s *apiServer, _ int, f []byte) bool { return write(s.member, f) }
	faults := map[string]*apiServer{
		"":        {deliver: send},
		"refuses": {deliver: send, refuses: 50},
		"loses":   {deliver: func(s *apiServer, n int, f []byte) bool { return n == 50 || write(s.member, f) }},
		"doubles": {deliver: func(s *apiServer, n int, f []byte) bool {
			return write(s.member, f) && (n != 50 || write(s.member, f))
		}},
		"swaps": {deliver: func(s *apiServer, n int, f []byte) bool {
			if n == 50 {
				held = f
				return true
			}
			return write(s.member, f) && (n != 51 || write(s.member, held))
		}},
		"hangs up": {deliver: func(s *apiServer, n int, f []byte) bool { return n < 50 && write(s.member, f) }},
	}
	for kind, change := range map[string]func(*load.Plan){
		"single":  func(*load.Plan) {},
		"batch":   func(p *load.Plan) { p.Batch = 100 },
		"socket":  func(p *load.Plan) { p.Socket, p.Window = true, 200 },
		"planned": func(p *load.Plan) { p.Rate = 1000 },
	} {
		for name := range faults {
			if (name == "swaps" || name == "loses") && (kind == "planned" || kind == "single") {
				continue // the next publish waits for this one
			}
			if name == "hangs up" && (kind == "batch" || kind == "socket") {
				continue // the generator sees it after the time in which messages may be late
			}
			t.Run(kind+"/"+name, func(t *testing.T) {
				s := &apiServer{deliver: faults[name].deliver, refuses: faults[name].refuses}
				server := httptest.NewServer(s)
				defer server.Close()
				p := publishesPlan(server.Listener.Addr().String(), 1, 1)
				change(&p)
				r := play(t, p)
				for ; r.Void == "" && r.Messages < 100 && p.Measure < time.Minute; p.Measure *= 4 { // a starved machine needs longer
					s.got = 0
					r = play(t, p)
				}
				if (r.Void != "") != (name != "") || name == "" && r.Messages == 0 {
					t.Errorf("%d messages, void: %q", r.Messages, r.Void)
				}
				if kind == "planned" && name == "" && r.P99 == 0 {
					t.Error("no latency")
				}
			})
		}
	}
}

// Clients come as planned and go, beside others whose messages are checked and timed. A greeting without a token's time is no
// answer to a token.
func TestDials(t *testing.T) {
	b := &bench{options: options{out: t.TempDir()}}
	if err := b.makeTokenKeys(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"parley", "parley-hs256", "parley-es256"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		server := &relay{members: map[string][]*seat{}, deliver: func(s *seat, _ int, f []byte) { write(s.conn, f) }}
		go server.serve(listener)
		p := dialsPlan(200)
		p.Addr, p.PID, p.Conns, p.Rooms, p.Rate, p.Warmup, p.Measure = listener.Addr().String(), os.Getpid(), 4, 2, 200, 20*time.Millisecond, 300*time.Millisecond
		p.Tokens, p.TokenKey = algorithms[name].name, filepath.Join(b.out, algorithms[name].file)
		r := play(t, p)
		if name == "parley" && (r.Void != "" || r.Messages == 0 || r.P99 == 0) {
			t.Errorf("%+v", r)
		}
		if name != "parley" && !strings.Contains(r.Void, "greeted otherwise") {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// A revocation is over when the clients were closed with 4001, and void with another code.
func TestRevoke(t *testing.T) {
	for code, good := range map[ws.StatusCode]bool{4001: true, 4006: false} {
		s := &apiServer{closes: code}
		server := httptest.NewServer(s)
		p := publishesPlan(server.Listener.Addr().String(), 1, 1)
		p.Scenario = "revoke"
		if r := play(t, p); (r.Void == "") != good || good && r.Reach == 0 {
			t.Errorf("closed with %d: %+v", code, r)
		}
		server.CloseClientConnections()
		server.Close()
	}
}

// Targets are judged by what they bound.
func TestTargets(t *testing.T) {
	r := row{server: "parley", runs: 1, ratio: 0.9, added: 12, figure: 150, allocs: 1}
	for _, c := range []struct {
		target target
		want   string
	}{
		{target{kind: ratioMost, bound: 0.9}, "met"}, {target{kind: ratioMost, bound: 0.85}, "missed"},
		{target{kind: addedMost, bound: 12}, "met"}, {target{kind: addedMost, bound: 11}, "missed"},
		{target{kind: figureMost, bound: 150}, "met"}, {target{kind: figureMost, bound: 149}, "missed"},
		{target{kind: figureLeast, bound: 150}, "met"}, {target{kind: figureLeast, bound: 151}, "missed"},
		{target{kind: allocsMost}, "missed"},
	} {
		if got := c.target.judge(r); got != c.want {
			t.Errorf("%s %v: %s, want %s", c.target.kind.label(), c.target.bound, got, c.want)
		}
	}
	if got := (target{}).judge(row{}); got != "not measured" {
		t.Error(got)
	}
}
