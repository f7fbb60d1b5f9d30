//go:build linux

package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster"
)

const (
	broadcastsVariable = "PARLEY_TEST_BROADCASTS"
	broadcastWorkers   = 4
	broadcastRoom      = "all"
	broadcastFor       = 4 * time.Second
)

// The test binary is also the server, in each of its roles. This is no TestMain: the roles' own flags must not be parsed as
// the tests'.
func init() {
	if os.Getenv(broadcastsVariable) == "" {
		return
	}
	err := serveBroadcasts()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(cluster.ExitCode(err))
}

// begin makes a worker's own code publish at a rate.
type begin struct {
	Count int     `json:"count"`
	Rate  float64 `json:"rate"`
}

func serveBroadcasts() error {
	cfg := engine.DefaultConfig()
	cfg.Port, cfg.Processes, cfg.Loops = -1, broadcastWorkers, 1
	cfg.BacklogSoftBytes, cfg.BacklogHardBytes = 64<<20, 64<<20
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	srv, err := engine.New(cfg, engine.WithLogger(log))
	if err != nil {
		return err
	}
	engine.On(srv, "begin", func(c *engine.Conn, m begin, s *engine.Server) (any, error) {
		go publishAll(s, c.ID()[:4], m)
		return nil, nil
	})
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return cluster.Run(ctx, srv, cluster.Options{Log: log, Ready: func(addr net.Addr) { fmt.Println(addr) }})
}

// publishAll publishes the broadcasts that are due each millisecond. One that a full mailbox refuses is published again.
func publishAll(s *engine.Server, name string, m begin) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	text := []byte(`{"from":"` + name + `","n":"`)
	for n, begun := 0, time.Now(); n < m.Count; {
		now := <-tick.C
		for due := int(now.Sub(begun).Seconds() * m.Rate); n < min(due, m.Count); {
			_, err := s.Broadcast(broadcastRoom, fmt.Appendf(text[:len(text):len(text)], "%08d\"}", n))
			if errors.Is(err, engine.ErrOverloaded) {
				break
			}
			if err != nil {
				panic(err)
			}
			n++
		}
	}
}

// witness is a member. It checks that it gets all broadcasts of all workers, in order, once.
type witness struct {
	conn net.Conn
	in   *bufio.Reader
	next map[string]int
}

// read takes frames until count have come from each of the workers.
func (w *witness) read(count int) error {
	missing := broadcastWorkers * count
	for missing > 0 {
		head, err := w.in.Peek(2)
		if err != nil {
			return fmt.Errorf("%d are missing: %w", missing, err)
		}
		n := int(head[1])
		if n > 125 {
			return errors.New("a frame that is none of ours")
		}
		frame, err := w.in.Peek(2 + n)
		if err != nil {
			return err
		}
		if text, ours := strings.CutPrefix(string(frame[2:]), `{"from":"`); ours {
			number, err := strconv.Atoi(text[len(`0000","n":"`):][:8])
			if err != nil {
				return err
			}
			if want := w.next[text[:4]]; number != want {
				return fmt.Errorf("got %d from %s, %d was next", number, text[:4], want)
			}
			w.next[text[:4]]++
			missing--
		}
		w.in.Discard(2 + n)
	}
	return nil
}

// seatWitnesses connects until every worker has exactly one.
func seatWitnesses(b *testing.B, addr string) (list []*witness) {
	seated := map[string]bool{}
	var spare []net.Conn
	for len(list) < broadcastWorkers {
		conn, rest, _, err := ws.Dial(b.Context(), "ws://"+addr)
		if err != nil {
			b.Fatal(err)
		}
		w := &witness{conn: conn, in: bufio.NewReaderSize(conn, 1<<18), next: map[string]int{}}
		if rest != nil {
			w.in = bufio.NewReaderSize(io.MultiReader(rest, conn), 1<<18)
		}
		var hello struct {
			ID string `json:"connection_id"`
		}
		header, err := ws.ReadHeader(w.in)
		if err != nil {
			b.Fatal(err)
		}
		text := make([]byte, header.Length)
		if _, err := io.ReadFull(w.in, text); err != nil || json.Unmarshal(text, &hello) != nil {
			b.Fatalf("%s, %v", text, err)
		}
		if seated[hello.ID[:4]] {
			spare = append(spare, conn)
			continue
		}
		seated[hello.ID[:4]] = true
		list = append(list, w)
	}
	for _, c := range spare {
		c.Close()
	}
	return list
}

// joinAll makes all members join before the first broadcast.
func joinAll(b *testing.B, list []*witness) {
	for _, w := range list {
		if err := wsutil.WriteClientText(w.conn, []byte(`{"type":"join","room":"`+broadcastRoom+`"}`)); err != nil {
			b.Fatal(err)
		}
		for {
			header, err := ws.ReadHeader(w.in)
			if err != nil {
				b.Fatal(err)
			}
			text := make([]byte, header.Length)
			if _, err := io.ReadFull(w.in, text); err != nil {
				b.Fatal(err)
			}
			if strings.Contains(string(text), `"joined"`) {
				break
			}
		}
	}
}

// Four workers publish from their own code, 500,000 broadcasts a second in all, to a room with a member on each. Each member
// gets all of them, in the order of each publisher, or the benchmark fails. A round is one such run, of some seconds:
//
//	go test -run '^$' -bench Broadcasts -benchtime 1x ./engine/cluster
func BenchmarkBroadcasts(b *testing.B) {
	for _, rate := range []int{100_000, 250_000, 500_000} {
		b.Run(strconv.Itoa(rate), func(b *testing.B) {
			for range b.N {
				broadcasts(b, float64(rate))
			}
		})
	}
}

func broadcasts(b *testing.B, rate float64) {
	server := exec.Command(os.Args[0])
	server.Env = append(os.Environ(), broadcastsVariable+"=1")
	server.Stderr = os.Stderr
	out, err := server.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := server.Start(); err != nil {
		b.Fatal(err)
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	members := seatWitnesses(b, strings.TrimSpace(addr))
	joinAll(b, members)
	each := int(rate * broadcastFor.Seconds() / broadcastWorkers)
	begun := time.Now()
	var all sync.WaitGroup
	for _, w := range members {
		text := fmt.Appendf(nil, `{"type":"begin","count":%d,"rate":%f}`, each, rate/broadcastWorkers)
		if err := wsutil.WriteClientText(w.conn, text); err != nil {
			b.Fatal(err)
		}
		w.conn.SetReadDeadline(begun.Add(10 * broadcastFor))
		all.Go(func() {
			if err := w.read(each); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	took := time.Since(begun).Seconds()
	for _, w := range members {
		w.conn.Close()
	}
	server.Process.Signal(syscall.SIGTERM)
	server.Wait()
	spent := server.ProcessState.SystemTime() + server.ProcessState.UserTime()
	n := float64(each * broadcastWorkers)
	b.ReportMetric(n/took, "broadcasts/s")
	b.ReportMetric(spent.Seconds()*1e6/n, "server-us/broadcast")
	b.ReportMetric(0, "ns/op")
}
