package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

const (
	massRooms    = 100
	massSpeakers = 3 // in each room
	massEach     = 5 // messages of each speaker
	enrolling    = 100
)

// metric reads one figure of /metrics.
func (s *server) metric(name string) float64 {
	s.t.Helper()
	response, err := http.Get(s.admin + "metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		s.t.Fatalf("no metric %s", name)
	}
	n, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// member is one of thousands: it counts the messages of each speaker, in order.
type member struct {
	conn *gorilla.Conn
	id   string
	next map[string]int
}

// hear reads until it has all messages of its room, each once and in its speaker's order.
func (m *member) hear(want int) error {
	for want > 0 {
		m.conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, raw, err := m.conn.ReadMessage()
		if err != nil {
			return err
		}
		var msg struct {
			Type, From string
			Data       int
		}
		if err := json.Unmarshal(raw, &msg); err != nil {
			return err
		}
		if msg.Type != "broadcast" {
			continue
		}
		if m.next[msg.From] != msg.Data {
			return fmt.Errorf("%d of %s came, %d was next", msg.Data, msg.From, m.next[msg.From])
		}
		m.next[msg.From]++
		want--
	}
	return nil
}

// massClients is the number of clients: a process may have 20,000 descriptors at most.
func massClients() int {
	if testing.Short() {
		return 2000
	}
	return 10000
}

// With thousands of clients in many rooms, no message is lost, doubled or out of order, and no connection has a goroutine.
// When all clients have gone, half of them cut off, their rooms, descriptors and goroutines are gone, too.
func TestMass(t *testing.T) {
	s := serveMany(t, 0)
	goroutines, descriptors := s.metric("go_goroutines"), s.metric("process_open_fds")
	members := make([]*member, massClients())
	gate := make(chan struct{}, 64)
	each := func(f func(i int) error) {
		t.Helper()
		var all sync.WaitGroup
		var failed atomic.Int32
		for i := range members {
			all.Add(1)
			gate <- struct{}{}
			go func() {
				defer all.Done()
				defer func() { <-gate }()
				if err := f(i); err != nil && failed.Add(1) < 5 {
					t.Errorf("client %d: %v", i, err)
				}
			}()
		}
		all.Wait()
		if failed.Load() > 0 {
			t.FailNow()
		}
	}
	each(func(i int) error {
		conn, _, err := gorilla.DefaultDialer.Dial(s.ws, nil)
		if err != nil {
			return err
		}
		members[i] = &member{conn: conn, next: map[string]int{}}
		return conn.WriteMessage(gorilla.TextMessage, fmt.Appendf(nil, `{"type":"join","room":"room-%d"}`, i%massRooms))
	})
	eventually(t, "all are in", func() bool { return s.stats("connections") == float64(len(members)) && s.stats("rooms") == massRooms })
	// gnet's pool keeps the goroutines that enrolled connections for some seconds: at most as many as were under way.
	if n := s.metric("go_goroutines"); n > goroutines+enrolling {
		t.Errorf("%v goroutines with %d connections, %v without", n, len(members), goroutines)
	}
	var done sync.WaitGroup
	var failed atomic.Int32
	for i, m := range members {
		want := massSpeakers * massEach
		if i < massSpeakers*massRooms {
			want -= massEach // a publisher does not get its own
		}
		done.Add(1)
		go func() {
			defer done.Done()
			if err := m.hear(want); err != nil && failed.Add(1) < 5 {
				t.Errorf("member %d: %v", i, err)
			}
		}()
	}
	for n := range massEach {
		for i := range massSpeakers * massRooms {
			if err := members[i].conn.WriteMessage(gorilla.TextMessage, fmt.Appendf(nil, `{"type":"broadcast","room":"room-%d","data":%d}`, i%massRooms, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	done.Wait()
	each(func(i int) error {
		if i%2 == 0 {
			(&gorillaClient{members[i].conn}).reset()
			return nil
		}
		return members[i].conn.Close()
	})
	eventually(t, "all are gone", func() bool { return s.stats("connections") == 0 && s.stats("rooms") == 0 })
	eventually(t, "the descriptors are back", func() bool { return s.metric("process_open_fds") <= descriptors+4 })
	eventually(t, "the goroutines are back", func() bool { return s.metric("go_goroutines") <= goroutines+enrolling })
}

// A server at its descriptor limit goes on: it serves its clients and answers new ones 503 with Retry-After. When a client
// leaves, another can connect.
func TestDescriptorLimit(t *testing.T) {
	s := serveMany(t, 200)
	var in []*gorilla.Conn
	var refused *http.Response
	for refused == nil {
		conn, response, err := gorilla.DefaultDialer.Dial(s.ws, nil)
		switch {
		case err == nil:
			defer conn.Close()
			in = append(in, conn)
		case response != nil:
			refused = response
		default:
			t.Fatalf("after %d: %v", len(in), err)
		}
	}
	if refused.StatusCode != 503 || refused.Header.Get("Retry-After") == "" || len(in) < 100 {
		t.Errorf("%d were in, then %d, Retry-After %q", len(in), refused.StatusCode, refused.Header.Get("Retry-After"))
	}
	p := &person{t: t, c: &gorillaClient{in[0]}}
	p.say(`{"type":"ping"}`)
	p.until("pong")
	for range 60 { // far more newcomers at once than the reserve holds
		go func() {
			if conn, _, err := gorilla.DefaultDialer.Dial(s.ws, nil); err == nil {
				conn.Close() // it came after another had left
			}
		}()
	}
	in[1].Close()
	eventually(t, "a newcomer is let in", func() bool {
		conn, _, err := gorilla.DefaultDialer.Dial(s.ws, nil)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	p.say(`{"type":"ping"}`)
	p.until("pong")
}
