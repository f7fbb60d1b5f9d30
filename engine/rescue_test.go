package engine

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/invariant"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// plant gives a server a type of message whose built-in handler panics, and has it catch panics of its own.
func plant(s *Server, fault func(l *loop, c *Conn)) {
	routes := builtinRoutes()
	routes["boom"] = &route{name: "boom", builtin: func(l *loop, c *Conn, _ *message.Envelope) { fault(l, c) }}
	s.routes.list.Store(&routes)
	s.guard.Rescues = true
}

func panics(*loop, *Conn) { panic("planted") }

// A panic in the server's own code costs the connection whose turn it is: it is told 1011, its rooms hear of its leaving,
// and the others of its loop go on, however the panic came about.
func TestOwnPanicCostsOneConnection(t *testing.T) {
	for name, blow := range map[string]func(w *script, c *Conn){
		"in its input": func(w *script, c *Conn) { w.say(c, `{"type":"boom"}`) },
		"in what was held behind an answer": func(w *script, c *Conn) {
			w.say(c, `{"type":"slow"}`)
			w.say(c, `{"type":"boom"}`)
			w.server.Offloaded()
		},
		"in a deadline": func(w *script, c *Conn) {
			w.say(c, `{"type":"slow"}`)
			w.say(c, `{"type":"boom"}`)
			w.pass(w.server.Server.cfg.OffloadTimeout + time.Second)
			w.server.Offloaded()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newScript(t, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = time.Hour, 2*time.Hour })
			s := w.server.Server
			plant(s, panics)
			s.On("slow", func(*Conn, *Message, *Server) (any, error) { return nil, nil }, Offload())
			ann, bob := w.open(0), w.open(0)
			for _, c := range []*Conn{ann, bob} {
				w.say(c, `{"type":"join","room":"r"}`)
				w.drain()
				w.read(c)
			}
			w.read(ann)
			blow(w, bob)
			w.drain()
			if got := w.read(bob); len(got) == 0 || got[len(got)-1] != "close 1011" {
				t.Errorf("the connection is told %q, want 1011 at the end", got)
			}
			w.expect(ann, "member_left")
			w.say(ann, `{"type":"ping"}`)
			w.expect(ann, "pong")
			if st := s.Stats(); st.Panics != 1 || st.Ended["panic"] != 1 || st.Connections != 1 {
				t.Errorf("%d panics, %d ended by them, %d connections", st.Panics, st.Ended["panic"], st.Connections)
			}
			for _, c := range []*Conn{ann, bob} {
				w.server.Gone(c)
			}
			w.pass(s.cfg.ReconnectionTTL + time.Minute)
			if left := w.server.Leftovers(); len(left) > 0 {
				t.Error(left)
			}
		})
	}
}

// A request that makes the server panic is answered with 500.
func TestPanicBeforeTheUpgrade(t *testing.T) {
	w := newScript(t, nil)
	w.server.Server.guard.Rescues = true
	w.server.Server.tuned.Store(&tuned{}) // the fault: there are no origins to ask
	c := w.open(0)
	if got := w.out[int(c.wire.Fd)].String(); !strings.HasPrefix(got, "HTTP/1.1 500 ") {
		t.Errorf("answered with %q", got)
	}
}

// Over the reactor: input that panics, and a write that does, cost those connections alone, and their descriptors.
func TestPanicOverLoopback(t *testing.T) {
	s := startServer(t, func(c *Config) { c.Loops = 1 }, func(s *Server) {
		plant(s, panics)
		(*s.routes.list.Load())["blow"] = &route{name: "blow", builtin: func(l *loop, c *Conn, _ *message.Envelope) {
			c.wire.First, c.wire.More = turn.Sealed([]byte("\x89\x00")), &turn.FrameList{} // the list behind the first frame is never empty
			c.wire.Answer([]byte(`{}`))
		}}
	})
	ann := dial(t, s)
	before := descriptors(t)
	bob := dial(t, s)
	bob.send(`{"type":"boom"}`)
	if code := bob.expectClose(); code != ws.StatusInternalServerError {
		t.Error("closed with", code)
	}
	bob.conn.Close()
	eve := dial(t, s)
	eve.send(`{"type":"blow"}`)
	eve.conn.SetReadDeadline(time.Now().Add(patient))
	if _, err := io.Copy(io.Discard, eve.conn); err != nil {
		t.Error("a connection whose write panics is not closed:", err)
	}
	eve.conn.Close()
	ann.send(`{"type":"ping"}`)
	ann.expect("pong")
	eventually(t, "nothing of the two is left", func() bool {
		return s.Stats().Panics == 2 && s.reactor.Held() == 1 && descriptors(t) <= before
	})
}

// A listener that panics, and one that returns no connection, cost no connection anything.
func TestListenerPanics(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	l := &wildListener{TCPListener: listener}
	s := startServer(t, nil, func(s *Server) { s.worker.Listener, s.guard.Rescues = l, true })
	c := dial(t, s)
	c.send(`{"type":"ping"}`)
	c.expect("pong")
	if st := s.Stats(); st.Panics != 1 || st.AcceptErrors != 2 {
		t.Errorf("%d panics and %d errors, want 1 and 2", st.Panics, st.AcceptErrors)
	}
}

// wildListener panics at first and returns nothing the second time.
type wildListener struct {
	*net.TCPListener
	calls atomic.Int64
}

func (w *wildListener) AcceptTCP() (*net.TCPConn, error) {
	switch w.calls.Add(1) {
	case 1:
		panic("planted in a listener")
	case 2:
		return nil, nil
	}
	return w.TCPListener.AcceptTCP()
}

// A panic that leaves a lock held ends the process: others would wait for it for ever.
func TestPanicUnderALock(t *testing.T) {
	if os.Getenv("TEST_CHILD") != t.Name() {
		if out, err := inChild(t); err == nil || !strings.Contains(out, "has left a lock held") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	s := startServer(t, nil, func(s *Server) {
		s.guard.LockWait = 100 * time.Millisecond
		plant(s, func(_ *loop, c *Conn) {
			c.wire.Mu.Lock()
			panic("under a lock")
		})
	})
	dial(t, s).send(`{"type":"boom"}`)
	<-t.Context().Done()
}

// Builds for tests catch nothing, builds for use do.
func TestRescuing(t *testing.T) {
	if s, err := New(DefaultConfig()); err != nil || s.guard.Rescues == invariant.On {
		t.Error(err)
	}
	defer func() {
		if v := recover(); fmt.Sprint(v) != "planted" {
			t.Error("the panic is", v)
		}
	}()
	(&Server{}).guard.Survive("", nil, "planted")
}
