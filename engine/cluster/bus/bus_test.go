package bus

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
	"github.com/parleyd/parley/protocol/ident"
)

// TestMain is also the main of the processes that tests start: this binary again, with a role.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := roles[role](); err != nil {
			fmt.Fprintln(os.Stderr, role+":", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var secret = []byte("only tests know this secret")

// eventually polls for a condition.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !canary.Wait(30*time.Second, cond) {
		t.Fatalf("waited in vain: %s", what)
	}
}

// some is how many repetitions a test makes: all in make soak, a part in make test.
func some(all, part int) int {
	if testing.Short() {
		return part
	}
	return all
}

func startServer(t testing.TB) *Server {
	t.Helper()
	s, err := Start(ServerOptions{Dir: t.TempDir(), Secret: secret, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// testLog shows the server's many lines for failing tests only.
func testLog(testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, nil))
}

// witness checks the entries that one worker receives: made by entryOf, in order, each once, without an undeclared hole.
type witness struct {
	mu    sync.Mutex
	next  map[ident.Worker]uint64 // of each publisher, the number that comes next
	lost  map[ident.Worker][]seqRange
	total int
	gone  []ident.Worker
	wrong []string
	gap   map[ident.Worker]bool // a loss was declared just now: a jump is in order
	block chan struct{}         // while it is open, the receiver hangs
	// exact says that batch n+1 is entry n: then a loss is checked to the number.
	exact bool
}

func newWitness() *witness {
	return &witness{next: map[ident.Worker]uint64{}, lost: map[ident.Worker][]seqRange{}, gap: map[ident.Worker]bool{}}
}

func (g *witness) receiver() Receiver {
	return Receiver{Batch: g.batch, Lost: g.declare, Gone: func(from ident.Worker) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.gone = append(g.gone, from)
	}}
}

func (g *witness) batch(from ident.Worker, entries iter.Seq[[]byte]) {
	if g.block != nil {
		<-g.block
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for e := range entries {
		n := binary.LittleEndian.Uint64(e)
		for i, b := range e[8:] {
			if b != byte(int(n)+i) {
				g.wrong = append(g.wrong, fmt.Sprintf("entry %d of %d is garbled at %d", n, from, i))
				break
			}
		}
		if want := g.next[from]; n != want && (n < want || !g.gap[from]) && len(g.wrong) < 10 {
			g.wrong = append(g.wrong, fmt.Sprintf("entry %d of %d comes where %d is next", n, from, want))
		}
		g.gap[from] = false
		g.next[from] = n + 1
		g.total++
	}
}

func (g *witness) declare(from ident.Worker, first, last uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gap[from] = true
	if g.exact {
		g.gap[from] = false
		if first != g.next[from]+1 || last < first {
			g.wrong = append(g.wrong, fmt.Sprintf("batches %d to %d of %d are lost where %d is next", first, last, from, g.next[from]+1))
		}
		g.next[from] = last
	}
	g.lost[from] = append(g.lost[from], seqRange{first, last})
}

func (g *witness) has(from ident.Worker, n uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.next[from] >= n
}

func (g *witness) check(t testing.TB) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, w := range g.wrong {
		t.Error(w)
	}
}

// appendEntry publishes entry n of a worker, of size bytes (8 at least).
func appendEntry(t testing.TB, l *Link, n uint64, size int) {
	if err := l.Append(entryOf(n, size)); err != nil {
		t.Error(err)
	}
}

// entryOf is an entry with a number, and bytes that follow from it.
func entryOf(n uint64, size int) []byte {
	entry := make([]byte, size)
	binary.LittleEndian.PutUint64(entry, n)
	for i := range entry[8:] {
		entry[8+i] = byte(int(n) + i)
	}
	return entry
}

func options(url string, instance ident.Worker, peers ...ident.Worker) LinkOptions {
	return LinkOptions{URL: url, Instance: instance, Password: Password(secret, instance), Peers: peers}
}

// dial dials and closes with the test.
func dial(t testing.TB, opts LinkOptions, g *witness) *Link {
	t.Helper()
	l, err := tryDial(t, opts, g)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tryDial(t testing.TB, opts LinkOptions, g *witness) (*Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	opts.Log = testLog(t)
	l, err := Dial(ctx, opts, g.receiver())
	if err == nil {
		t.Cleanup(l.Close)
	}
	return l, err
}

// lostBatches is how many batches were declared lost.
func (g *witness) lostBatches() (n uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, ranges := range g.lost {
		for _, r := range ranges {
			n += r.last - r.first + 1
		}
	}
	return n
}

// noLeaks fails the test if goroutines of ours or of the client are left when all else is cleaned up: call it
// first.
func noLeaks(t testing.TB) {
	t.Cleanup(func() {
		var left string
		eventually(t, "goroutines to end", func() bool {
			buf := make([]byte, 1<<20)
			left = ""
			for stack := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				ours := strings.Contains(stack, "cluster/bus.") || strings.Contains(stack, "nats-io/")
				if ours && !strings.Contains(stack, "testing.") {
					left += stack + "\n\n"
				}
			}
			return left == ""
		})
	})
}
