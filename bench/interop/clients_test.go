package interop

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
)

// client is an independent WebSocket client.
type client interface {
	send(text string) error
	read() ([]byte, error)
	reset() // cut the connection, as a bad network would
}

type coderClient struct{ conn *websocket.Conn }

func (c *coderClient) send(text string) error {
	return c.conn.Write(context.Background(), websocket.MessageText, []byte(text))
}

func (c *coderClient) read() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	_, p, err := c.conn.Read(ctx)
	return p, err
}

func (c *coderClient) reset() { c.conn.CloseNow() }

type gorillaClient struct{ conn *gorilla.Conn }

func (c *gorillaClient) send(text string) error {
	return c.conn.WriteMessage(gorilla.TextMessage, []byte(text))
}

func (c *gorillaClient) read() ([]byte, error) {
	c.conn.SetReadDeadline(time.Now().Add(patient))
	_, p, err := c.conn.ReadMessage()
	return p, err
}

func (c *gorillaClient) reset() {
	c.conn.NetConn().(*net.TCPConn).SetLinger(0)
	c.conn.NetConn().Close()
}

// nodeClient is npm's ws, driven over pipes: each line in is a message to send, each line out a message that came.
type nodeClient struct {
	cmd *exec.Cmd
	in  interface{ Write([]byte) (int, error) }
	out *bufio.Scanner
}

func (c *nodeClient) send(text string) error {
	_, err := fmt.Fprintln(c.in, text)
	return err
}

func (c *nodeClient) read() ([]byte, error) {
	if !c.out.Scan() {
		return nil, fmt.Errorf("node has ended: %v", c.out.Err())
	}
	return append([]byte(nil), c.out.Bytes()...), nil
}

func (c *nodeClient) reset() { c.send("!reset") }

// dialers are the kinds of clients.
var dialers = map[string]func(t *testing.T, url string) client{
	"coder": func(t *testing.T, url string) client {
		conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{CompressionMode: websocket.CompressionContextTakeover})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.CloseNow() })
		return &coderClient{conn}
	},
	"gorilla": func(t *testing.T, url string) client {
		conn, _, err := (&gorilla.Dialer{EnableCompression: true}).Dial(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return &gorillaClient{conn}
	},
	"node": func(t *testing.T, url string) client {
		cmd := exec.Command(need(t, "node"), "client.js", url)
		cmd.Dir = nodeModules(t)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		return &nodeClient{cmd, in, bufio.NewScanner(out)}
	},
}

// nodeModules installs the packages of package-lock.json, once.
func nodeModules(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("node")
	if err != nil {
		t.Fatal(err)
	}
	_, socket := os.Stat(filepath.Join(dir, "node_modules", "ws"))
	_, generator := os.Stat(filepath.Join(dir, "node_modules", "openapi-typescript"))
	if socket == nil && generator == nil {
		return dir
	}
	install := exec.Command(need(t, "npm"), "ci", "--no-audit", "--no-fund")
	install.Dir = dir
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// person is a client that has been greeted.
type person struct {
	t         *testing.T
	c         client
	id, token string
}

func greet(t *testing.T, kind, url string) *person {
	t.Helper()
	p := &person{t: t, c: dialers[kind](t, url)}
	p.id = p.until("connected")["connection_id"].(string)
	p.token = p.until("reconnect_token")["token"].(string)
	return p
}

func (p *person) say(format string, args ...any) {
	p.t.Helper()
	if err := p.c.send(fmt.Sprintf(format, args...)); err != nil {
		p.t.Fatal(err)
	}
}

// until reads up to a message of a type, answering pings.
func (p *person) until(typ string) map[string]any {
	p.t.Helper()
	for {
		raw, err := p.c.read()
		if err != nil {
			p.t.Fatalf("waiting for %q: %v", typ, err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			p.t.Fatalf("%s: %v", raw, err)
		}
		if m["type"] == typ {
			return m
		}
	}
}

// Three independent kinds of clients join a room, get each other's messages in order, send private messages, are cut off
// and resume.
func TestClients(t *testing.T) {
	for _, compression := range []string{"--compression=false", "--compression=true"} {
		t.Run(compression, func(t *testing.T) {
			s := serve(t, compression)
			var people []*person
			for _, kind := range []string{"coder", "gorilla", "node"} {
				p := greet(t, kind, s.ws)
				p.say(`{"type":"join","room":"r"}`)
				p.until("joined")
				people = append(people, p)
			}
			long := make([]byte, 600)
			for i := range long {
				long[i] = byte('a' + i%7)
			}
			for _, from := range people {
				for i := range 50 {
					from.say(`{"type":"broadcast","room":"r","data":{"n":%d,"pad":"%s"}}`, i, long)
				}
				for _, to := range people {
					for i := 0; to != from && i < 50; i++ {
						m := to.until("broadcast")
						if data := m["data"].(map[string]any); data["n"] != float64(i) || m["from"] != from.id || data["pad"] != string(long) {
							t.Fatalf("message %d came as %v", i, m)
						}
					}
				}
			}
			people[0].say(`{"type":"private","to":"%s","text":"psst"}`, people[2].id)
			if m := people[2].until("private"); m["text"] != "psst" {
				t.Error(m)
			}
			for i, kind := range []string{"coder", "gorilla", "node"} {
				old, other := people[i], people[(i+1)%3]
				old.c.reset()
				for other.until("member_left")["connection_id"] != old.id {
				}
				heir := greet(t, kind, s.ws)
				heir.say(`{"type":"reconnect","token":"%s"}`, old.token)
				if m := heir.until("reconnected"); fmt.Sprint(m["rooms"]) != "[r]" || m["previous_connection_id"] != old.id {
					t.Error(m)
				}
				for other.until("member_joined")["connection_id"] != heir.id {
				}
				thief := greet(t, "gorilla", s.ws)
				thief.say(`{"type":"reconnect","token":"%s"}`, old.token)
				if m := thief.until("error"); m["code"] != "invalid_token" {
					t.Error(m)
				}
				people[i] = heir
			}
		})
	}
}

// A half-open connection whose session is resumed is closed with 4004.
func TestTakeOver(t *testing.T) {
	s := serve(t)
	old := greet(t, "gorilla", s.ws)
	heir := greet(t, "coder", s.ws)
	heir.say(`{"type":"reconnect","token":"%s"}`, old.token)
	heir.until("reconnected")
	if _, err := old.c.read(); !gorilla.IsCloseError(err, 4004) {
		t.Error(err)
	}
}
