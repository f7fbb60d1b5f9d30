package connect

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// patience is how long a test waits for what must come, on a machine that idles.
const patience = 30 * time.Second

// quick are limits under which a client comes back at once.
var quick = Limits{Handshake: patience, Answer: patience, Write: patience, Quiet: patience, Gone: 2 * patience, Close: patience,
	RetryMin: 5 * time.Millisecond, RetryMax: 20 * time.Millisecond, RetryAgain: time.Hour}

// screen is what a person sees of one stream.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// person runs a client.
type person struct {
	t          *testing.T
	in         *io.PipeWriter
	out, notes screen
	interrupt  context.CancelFunc
	ended      chan error
}

// sit starts a client of a server, with options that change changes.
func sit(t *testing.T, address string, change func(*Options)) *person {
	t.Helper()
	in, write := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	p := &person{t: t, in: write, interrupt: interrupt, ended: make(chan error, 1)}
	o := Options{URL: &url.URL{Scheme: "ws", Host: address, Path: "/"}, Token: func() (string, error) { return "", nil }, In: in, Out: &p.out, Err: &p.notes, Limits: quick}
	if change != nil {
		change(&o)
	}
	go func() { p.ended <- Run(ctx, o) }()
	t.Cleanup(func() {
		interrupt()
		write.Close()
	})
	return p
}

func (p *person) types(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(p.in, line+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
}

// sees waits for a text on a screen.
func (p *person) sees(text string) {
	p.t.Helper()
	p.waits(text, func() bool { return strings.Contains(p.out.String()+"\n"+p.notes.String(), text) })
}

func (p *person) waits(what string, ok func() bool) {
	p.t.Helper()
	if !canary.Wait(patience, ok) {
		p.t.Fatalf("never: %s\nout:\n%s\nnotes:\n%s", what, p.out.String(), p.notes.String())
	}
}

// end waits for the end of the client.
func (p *person) end() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(canary.Stretch(patience)):
		p.t.Fatalf("it does not end\nout:\n%s\nnotes:\n%s", p.out.String(), p.notes.String())
		return nil
	}
}

// serve starts a server, with handlers that setup registers.
func serve(t *testing.T, change func(*engine.Config), setup ...func(*engine.Server)) *engine.Server {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Port, cfg.Loops = -1, 1
	if change != nil {
		change(&cfg)
	}
	s, err := engine.New(cfg, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	for _, register := range setup {
		register(s)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(patience))
		defer cancel()
		s.Shutdown(ctx)
	})
	return s
}

// relay stands between clients and a server, and cuts their connections.
type relay struct {
	net.Listener
	to     string
	mu     sync.Mutex
	closed bool // nobody comes through
	conns  []net.Conn
}

func relayTo(t *testing.T, address string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: address}
	go r.run()
	t.Cleanup(func() {
		l.Close()
		r.cut(true)
	})
	return r
}

func (r *relay) run() {
	for {
		conn, err := r.Accept()
		if err != nil {
			return
		}
		other, err := net.Dial("tcp", r.to)
		r.mu.Lock()
		if err != nil || r.closed {
			conn.Close()
			if other != nil {
				other.Close()
			}
			r.mu.Unlock()
			continue
		}
		r.conns = append(r.conns, conn, other)
		r.mu.Unlock()
		for _, pair := range [][2]net.Conn{{conn, other}, {other, conn}} {
			go func() {
				io.Copy(pair[0], pair[1])
				pair[0].Close()
			}()
		}
	}
}

// cut ends all connections. closed keeps further ones out.
func (r *relay) cut(closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = closed
	for _, conn := range r.conns {
		conn.Close()
	}
	r.conns = nil
}

func (r *relay) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = false
}

func (r *relay) address() string { return r.Addr().String() }
