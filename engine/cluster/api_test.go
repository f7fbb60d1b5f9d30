package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/parleyd/parley/engine"
)

// publishOverHTTP is the API of the tests: a POST's body goes to the members of the room that its path names.
func publishOverHTTP(ctx context.Context, srv *engine.Server, l net.Listener) error {
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			_, err = srv.Broadcast(strings.TrimPrefix(r.URL.Path, "/"), json.RawMessage(body))
		}
		if err == nil {
			err = srv.Confirm(r.Context())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})}
	context.AfterFunc(ctx, func() { server.Shutdown(context.Background()) })
	if err := server.Serve(l); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// post publishes over the API.
func (s *serverProcess) post(room, body string) error {
	r, err := http.Post("http://"+s.api+"/"+room, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(r.Body)
		return fmt.Errorf("%s: %s", r.Status, text)
	}
	return nil
}

// What the API publishes reaches the members on all workers, in order. Each answered publish arrives exactly once, although
// the api process and the bus are killed meanwhile.
func TestAPIProcess(t *testing.T) {
	for _, processes := range []int{1, 3} {
		t.Run(fmt.Sprint(processes, " processes"), func(t *testing.T) {
			t.Setenv(apiVariable, "1")
			s := startProcesses(t, engine.Config{Processes: processes})
			members := s.membersOn(processes)
			answered := map[int]bool{}
			publish := func(from, to int) {
				for n := from; n < to; n++ {
					answered[n] = s.post("news", fmt.Sprintf(`{"type":"news","n":%d}`, n)) == nil
				}
			}
			publish(0, 50)
			if processes > 1 {
				pid := s.signal("api", syscall.SIGKILL)
				publish(50, 100)
				poll(t, "the api process is back", func() bool { return s.isReady("api", pid) })
				pid = s.signal("bus", syscall.SIGKILL)
				publish(100, 150)
				poll(t, "the bus is back", func() bool { return s.isReady("bus", pid) && s.post("other", `{}`) == nil })
			}
			publish(150, 200)
			if !answered[0] || !answered[199] {
				t.Error("a publish while all is well is not answered")
			}
			for _, m := range members {
				m.expectNews(answered, 200)
			}
		})
	}
}

// membersOn has members of the room news on n workers.
func (s *serverProcess) membersOn(n int) (members []*client) {
	workers := map[int]bool{}
	for len(workers) < n {
		c := s.dial("")
		if !workers[c.pid] {
			workers[c.pid] = true
			c.must(`{"type":"join","room":"news"}`, "joined")
			members = append(members, c)
		}
	}
	return members
}

// expectNews reads until the last of n messages: each that was answered comes once, none comes twice or out of order.
func (c *client) expectNews(answered map[int]bool, n int) {
	c.t.Helper()
	for next := 0; next < n; {
		m, err := c.await("news")
		if err != nil {
			c.t.Fatalf("message %d: %v", next, err)
		}
		got := int(m["n"].(float64))
		for ; next < got; next++ {
			if answered[next] {
				c.t.Errorf("message %d was answered, and %d comes instead", next, got)
			}
		}
		if got < next {
			c.t.Fatalf("message %d comes after %d", got, next-1)
		}
		next++
	}
}
