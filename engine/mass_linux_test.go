package engine

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine/internal/pending"
)

const (
	massVerdict = time.Second
	massWorkers = 1024
)

// inspection is what a server says of its process.
type inspection struct{ Goroutines, Descriptors, Sessions, Heap int }

func (i inspection) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d KiB of heap", i.Goroutines, i.Descriptors, i.Heap>>10)
}

// serveSlowly is the other process of TestMassAuthentication: a server whose authentication takes a second,
// except for who says that it is known.
func serveSlowly() error {
	cfg := DefaultConfig()
	cfg.Port, cfg.OffloadWorkers, cfg.ReconnectionTTL = -1, massWorkers, time.Second
	s, err := New(cfg, WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return err
	}
	s.OnConnect(func(c *Conn, r *Request) error {
		if r.Query("known") != "yes" {
			<-time.After(massVerdict)
		}
		return nil
	})
	s.On("inspect", func(_ *Conn, _ *Message, s *Server) (any, error) {
		runtime.GC() // what pools hold survives one
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		return inspection{runtime.NumGoroutine(), len(fds), s.Stats().Sessions, int(m.HeapAlloc)}, err
	}, Offload())
	s.On("goroutines", func(*Conn, *Message, *Server) (any, error) {
		return inspection{Goroutines: runtime.NumGoroutine()}, nil
	})
	if err := s.Start(); err != nil {
		return err
	}
	fmt.Println("listening on", s.Addr())
	_, err = io.Copy(io.Discard, os.Stdin) // until the test is over
	return err
}

// massClient asks for the upgrade and returns once it is granted.
func massClient(address, path string) (net.Conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", path)
	c.SetDeadline(time.Now().Add(time.Minute))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "HTTP/1.1 101 ") {
		err = fmt.Errorf("answered %q", line)
	}
	if err != nil {
		c.Close()
	}
	return c, err
}

// massDials is how many the masses are.
func massDials() int {
	if testing.Short() {
		return 2000
	}
	return 10_000
}

// Thousands of dials whose authentication takes a second each: the goroutines stay bounded, admitted clients
// are answered as before, all get in, and when they have gone, nothing is left behind.
func TestMassAuthentication(t *testing.T) {
	if os.Getenv("SERVE_SLOWLY") != "" {
		if err := serveSlowly(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if raceEnabled {
		t.Skip("thousands of clients are not for the race detector")
	}
	known := startSlowServer(t)
	known.send(`{"type":"ping"}`) // so that what is made on first use is there
	known.expect("pong")
	before := known.inspect("inspect")
	calm := known.latency(200)
	var conns []net.Conn
	all, most := make(chan bool), 0
	go func() { conns = massDial(t, known, "/"); close(all) }()
	var busy []time.Duration
	for waiting := true; waiting; {
		select {
		case <-all:
			waiting = false
		default:
			busy = append(busy, known.latency(20))
			most = max(most, known.inspect("goroutines").Goroutines)
		}
	}
	slices.Sort(busy)
	t.Logf("an answer takes %v when it is calm, %v while %d authenticate (medians); at most %d goroutines",
		calm, busy[len(busy)/2], massDials(), most)
	if busy[len(busy)/2] > massVerdict/20 {
		t.Errorf("an answer takes %v: somebody else's authentication holds the loop", busy[len(busy)/2])
	}
	if bound := massWorkers + before.Goroutines + 200; most > bound {
		t.Errorf("%d goroutines, %d are the bound", most, bound)
	}
	for _, c := range conns {
		c.Close()
	}
	rounds := []inspection{known.givenBack(before)}
	for range 3 {
		for _, c := range massDial(t, known, "/?known=yes") {
			c.Close()
		}
		rounds = append(rounds, known.givenBack(before))
	}
	t.Logf("before: %v; after each %d connections: %v", before, massDials(), rounds)
	if grown := rounds[3].Heap - before.Heap; grown > massCachesBytes {
		t.Errorf("%d connections have left %d bytes, %d are the loops' own", 4*massDials(), grown, massCachesBytes)
	}
}

// massDial connects the masses, all at once.
func massDial(t *testing.T, known *client, path string) (conns []net.Conn) {
	var mu sync.Mutex
	var dials sync.WaitGroup
	failed := 0
	for i := range massDials() {
		dials.Add(1)
		go func() {
			defer dials.Done()
			c, err := massClient(known.conn.RemoteAddr().String(), path)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				conns = append(conns, c)
			} else if failed++; failed < 5 {
				t.Errorf("client %d: %v", i, err)
			}
		}()
	}
	dials.Wait()
	return conns
}

// givenBack waits until the masses are gone and their sessions over.
func (c *client) givenBack(before inspection) (after inspection) {
	c.t.Helper()
	eventually(c.t, "everything is given back", func() bool {
		after = c.inspect("inspect")
		return after.Sessions == 0 && after.Goroutines <= before.Goroutines+pending.IdleKept+100 && after.Descriptors <= before.Descriptors+8
	})
	return after
}

// massCachesBytes is about what loops keep for the next rush: lists, letters, buffers, tables of sessions. It does
// not grow with the number of connections that there have been: a hundred bytes for each would be found.
const massCachesBytes = 5 << 20

func startSlowServer(t *testing.T) *client {
	cmd := exec.Command(os.Args[0], "-test.run", "^TestMassAuthentication$")
	cmd.Env = append(os.Environ(), "SERVE_SLOWLY=1")
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the server says %q, %v", line, err)
	}
	known := dialURL(t, "ws://"+address+"/?known=yes", ws.Dialer{})
	known.expect("connected")
	known.expect("reconnect_token")
	return known
}

// inspect asks a server about its process.
func (c *client) inspect(kind string) (i inspection) {
	c.t.Helper()
	c.send(fmt.Sprintf(`{"type":%q}`, kind))
	c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	raw, _, err := wsutil.ReadServerData(c.conn)
	if err == nil {
		err = json.Unmarshal(raw, &i)
	}
	if err != nil {
		c.t.Fatalf("%s: %v", raw, err)
	}
	return i
}

// latency is the median time of some answers.
func (c *client) latency(n int) time.Duration {
	c.t.Helper()
	var all []time.Duration
	for range n {
		begun := time.Now()
		c.send(`{"type":"ping"}`)
		c.expect("pong")
		all = append(all, time.Since(begun))
	}
	slices.Sort(all)
	return all[n/2]
}
