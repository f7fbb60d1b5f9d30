package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine/canary"
)

// client is a client of the tests, over gobwas/ws's own client.
type client struct {
	t     testing.TB
	conn  net.Conn
	id    string
	token string
	pid   int // of its worker
}

// dial connects, reads the greeting, and asks which worker serves it.
func (s *serverProcess) dial(query string) *client {
	s.t.Helper()
	c, err := s.connect(query)
	if err != nil {
		s.t.Fatalf("dial: %v", err)
	}
	return s.own(c)
}

// own makes a client that of the test, which closes it at its end.
func (s *serverProcess) own(c *client) *client {
	c.t = s.t
	s.t.Cleanup(func() { c.conn.Close() })
	return c
}

// connect is dial for any goroutine: the client may be used with ask and await, and the methods built on them.
func (s *serverProcess) connect(query string) (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(patient))
	defer cancel()
	conn, br, _, err := ws.Dial(ctx, "ws://"+s.addr+"/"+query)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn}
	if br != nil {
		c.conn = &buffered{conn, br}
	}
	if err := c.greeted(); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) greeted() error {
	for _, typ := range []string{"connected", "reconnect_token"} {
		greeting, err := c.await("connected", "reconnect_token")
		switch {
		case err != nil:
			return err
		case greeting["type"] != typ:
			return fmt.Errorf("greeted with %v, want %s", greeting, typ)
		case typ == "connected":
			c.id = greeting["connection_id"].(string)
		default:
			c.token = greeting["token"].(string)
		}
	}
	told, err := c.ask(`{"type":"tell"}`, "told")
	if err == nil {
		c.pid = int(told["pid"].(float64))
	}
	return err
}

// dialTo connects until the worker with a pid serves it; 0 is any.
func (s *serverProcess) dialTo(pid int) *client {
	s.t.Helper()
	for begun := canary.Now(); canary.Now()-begun < patient; {
		c := s.dial("")
		if pid == 0 || c.pid == pid {
			return c
		}
		c.conn.Close()
	}
	s.t.Fatalf("no connection reaches worker %d", pid)
	return nil
}

// each connects to worker 0, worker 1, and so on.
func (s *serverProcess) each(workers int) (list []*client) {
	s.t.Helper()
	for i := range workers {
		list = append(list, s.dialTo(s.pid(fmt.Sprint("worker ", i))))
	}
	return list
}

// dialAt connects until a worker serves it that is not among others. A test may have killed those: the kernel resets what
// waited in their queues.
func (s *serverProcess) dialAt(query string, others ...int) *client {
	s.t.Helper()
	for begun := canary.Now(); canary.Now()-begun < patient; {
		c, err := s.connect(query)
		switch {
		case errors.Is(err, syscall.ECONNRESET) && len(others) > 0:
			continue
		case err != nil:
			s.t.Fatalf("dial: %v", err)
		case !slices.Contains(others, c.pid):
			return s.own(c)
		}
		c.conn.Close()
	}
	s.t.Fatal("no other worker takes connections")
	return nil
}

type buffered struct {
	net.Conn
	r io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (c *client) send(v any) {
	c.t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := wsutil.WriteClientText(c.conn, raw); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// next returns the next text message, answering pings on the way.
func (c *client) next() map[string]any {
	c.t.Helper()
	m, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return m
}

func (c *client) read() (m map[string]any, err error) {
	c.conn.SetReadDeadline(time.Now().Add(canary.Stretch(patient)))
	raw, _, err := wsutil.ReadServerData(c.conn)
	if err != nil {
		return nil, err
	}
	return m, json.Unmarshal(raw, &m)
}

// expect returns the next message, which must be of a type.
func (c *client) expect(typ string) map[string]any {
	c.t.Helper()
	m := c.next()
	if m["type"] != typ {
		c.t.Fatalf("got %v, want a message of type %q", m, typ)
	}
	return m
}

// until skips messages of other types.
func (c *client) until(types ...string) map[string]any {
	c.t.Helper()
	answer, err := c.await(types...)
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return answer
}

type m = map[string]any

// await skips messages of other types. Any goroutine, as ask.
func (c *client) await(types ...string) (m, error) {
	for {
		answer, err := c.read()
		if err != nil || slices.Contains(types, answer["type"].(string)) {
			return answer, err
		}
	}
}

func (c *client) ask(text string, types ...string) (m, error) {
	if err := wsutil.WriteClientText(c.conn, []byte(text)); err != nil {
		return nil, err
	}
	return c.await(types...)
}

// must is ask, for a test's own goroutine.
func (c *client) must(text string, types ...string) m {
	c.t.Helper()
	answer, err := c.ask(text, types...)
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	return answer
}

func (c *client) join(rooms ...string) {
	c.t.Helper()
	for _, r := range rooms {
		c.insist(m{"type": "join", "room": r}, "joined")
	}
}

// insist asks again as long as the answer is to try again: the store is late.
func (c *client) insist(message m, typ string) {
	c.t.Helper()
	var answer m
	poll(c.t, "an answer other than unavailable", func() bool {
		c.send(message)
		answer = c.until(typ, "error")
		return answer["code"] != "unavailable"
	})
	if answer["type"] != typ {
		c.t.Fatal(answer)
	}
}

func (c *client) keep(value string) {
	c.t.Helper()
	c.send(m{"type": "keep", "value": value})
	c.until("kept")
}

// stored waits until the session is stored as it is now. A change in a turn after the answer counts from the second check
// on.
func (c *client) stored() {
	c.t.Helper()
	turns := 0
	poll(c.t, "the session is stored", func() bool {
		c.send(m{"type": "unsaved"})
		if turns++; c.until("unsaved")["millis"] != 0.0 {
			turns = 0
		}
		return turns > 1
	})
}

// told is a worker's answer about a connection.
type told struct {
	Attribute, User string
	Pid             int
	Rooms           []string
}

func (c *client) tell() (out told) {
	c.t.Helper()
	c.send(m{"type": "tell"})
	raw, _ := json.Marshal(c.until("told"))
	if err := json.Unmarshal(raw, &out); err != nil {
		c.t.Fatal(err)
	}
	slices.Sort(out.Rooms)
	return out
}

// resume shows a token, and returns the answer. After success it keeps the new token.
func (c *client) resume(token string) map[string]any {
	c.t.Helper()
	c.send(m{"type": "reconnect", "token": token, "ref": "r"})
	return c.answer("r")
}

// resumeAtLast shows a token as long as the answer is to try again.
func (c *client) resumeAtLast(token string) (answer map[string]any) {
	c.t.Helper()
	poll(c.t, "an answer other than unavailable", func() bool {
		answer = c.resume(token)
		return answer["code"] != "unavailable"
	})
	return answer
}

// answer skips messages before the answer to a reconnect, and keeps the new token after it.
func (c *client) answer(ref string) map[string]any {
	c.t.Helper()
	for {
		answer := c.next()
		if answer["ref"] != ref {
			continue
		}
		if answer["type"] == "reconnected" {
			c.token = c.until("reconnect_token")["token"].(string)
		}
		return answer
	}
}

// closed reads to the end, and returns the close code.
func (c *client) closed() ws.StatusCode {
	c.t.Helper()
	for {
		_, err := c.read()
		if closed, ok := err.(wsutil.ClosedError); ok {
			return closed.Code
		}
		if err != nil {
			c.t.Fatalf("no close frame came: %v", err)
		}
	}
}

// hangUp waits for the server's close, and hangs up.
func (c *client) hangUp() {
	for {
		if _, err := c.read(); err != nil {
			c.conn.Close()
			return
		}
	}
}

// expectResumed resumes and checks the restored state.
func (c *client) expectResumed(old *client, value string, rooms ...string) {
	c.t.Helper()
	c.expectHeir(c.resume(old.token), old, value, rooms...)
}

// expectHeir checks the answer to a resume, and the restored state.
func (c *client) expectHeir(answer m, old *client, value string, rooms ...string) {
	c.t.Helper()
	if answer["type"] != "reconnected" || answer["previous_connection_id"] != old.id || answer["connection_id"] != c.id {
		c.t.Fatalf("got %v, want to be the heir of %s", answer, old.id)
	}
	if got := c.tell(); got.Attribute != value || got.User != value || !slices.Equal(got.Rooms, rooms) {
		c.t.Fatalf("restored %+v, want %q in %v", got, value, rooms)
	}
}

// expectRefused tries to resume, and wants a refusal.
func (c *client) expectRefused(token, code string) {
	c.t.Helper()
	if answer := c.resume(token); answer["code"] != code {
		c.t.Fatalf("got %v, want %s", answer, code)
	}
}
