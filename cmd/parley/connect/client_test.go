package connect

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/engine"
)

func inRooms(names ...string) func(*Options) { return func(o *Options) { o.Rooms = names } }

type letter struct {
	To   string `json:"to"`
	Text string `json:"text"`
}

// private passes a text on to one connection.
func private(c *engine.Conn, m letter, s *engine.Server) (any, error) {
	return engine.M{"type": "private_sent", "delivered": s.SendTo(m.To, engine.M{"type": "private", "from": c.ID(), "text": m.Text})}, nil
}

// Two people speak in a room, with each command once.
func TestConversation(t *testing.T) {
	s := serve(t, nil, func(s *engine.Server) { engine.On(s, "private", private) })
	ann := sit(t, s.Addr().String(), inRooms("lobby"))
	ann.sees("[lobby] * joined: 1 member")
	bob := sit(t, s.Addr().String(), inRooms("lobby", "news"))
	bob.sees("[news] * joined: 1 member")
	ann.sees(" has joined")
	id := regexp.MustCompile(`connected as (\w{24})`).FindStringSubmatch(ann.out.String())[1]
	bob.types("hello  there", "//shrug", "/members", "/to "+id+" a secret")
	ann.sees("> hello  there\n")
	ann.sees("> /shrug\n")
	bob.sees("[lobby] * sent to 1 member\n")
	bob.sees("[lobby] * 2 members:\n")
	bob.sees("\n         " + id + "\n")
	ann.sees("private <")
	ann.sees("> a secret\n")
	bob.types("/room news", "to nobody", "/room", "/room nowhere", "/join", "/join third", "to the third", "/leave", "/leave lobby", "/what", "/to x", `/raw {"type":"no such"}`, "/ping", "/help")
	bob.sees("what you type goes to news\n")
	bob.sees("[news] * sent to 0 members\n")
	bob.sees("  lobby\n* news\n")
	bob.sees("you are not in nowhere")
	bob.sees("/join needs the name of a room")
	bob.sees("[third] * sent to 0 members\n")
	bob.sees("[third] * left\n")
	bob.sees("what you type goes to news now\n")
	bob.sees("[lobby] * left\n")
	ann.sees(" has left\n")
	bob.sees("/what is no command")
	bob.sees("/to needs the id")
	bob.sees("! unknown_type: ")
	bob.sees("pong after ")
	bob.sees("A text that begins with /")
	bob.types("/leave")
	bob.sees("[news] * left\n")
	bob.types("a text without a room", "/quit")
	bob.sees("there is no current room: /join ROOM")
	if err := bob.end(); err != nil {
		t.Error(err)
	}
	ann.interrupt()
	if err := ann.end(); err != nil {
		t.Error(err)
	}
	if strings.Contains(bob.notes.String(), "broke") || strings.Contains(bob.notes.String(), "gone") {
		t.Error(bob.notes.String())
	}
}

// Lines of a pipe are all sent, in order, and answered before the client leaves, with a close frame.
func TestPipe(t *testing.T) {
	s := serve(t, nil)
	ann := sit(t, s.Addr().String(), inRooms("lobby"))
	ann.sees("joined: 1 member")
	var lines []string
	for n := range 500 {
		lines = append(lines, "line "+strconv.Itoa(n))
	}
	bob := sit(t, s.Addr().String(), func(o *Options) {
		o.Rooms, o.In = []string{"lobby"}, strings.NewReader(strings.Join(lines, "\n")) // the last line does not end
	})
	if err := bob.end(); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(bob.out.String(), "* sent to 1 member\n"); n != len(lines) {
		t.Errorf("%d answers to %d lines", n, len(lines))
	}
	ann.sees("> line 499\n")
	var got []string
	for _, m := range regexp.MustCompile(`> (line \d+)\n`).FindAllStringSubmatch(ann.out.String(), -1) {
		got = append(got, m[1])
	}
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("%d lines arrive, or in another order", len(got))
	}
	ann.sees(" has left")
}

// Over a cut the session is resumed: what was missed comes once and in order, what is gone is named, and a line that was typed
// meanwhile is sent.
func TestComesBack(t *testing.T) {
	s := serve(t, func(c *engine.Config) { c.History = []string{"h=messages:3"} })
	r := relayTo(t, s.Addr().String())
	ann := sit(t, r.address(), inRooms("h", "plain"))
	ann.sees("[plain] * joined: 1 member")
	say := func(text string) {
		if _, err := s.Broadcast("h", engine.M{"type": "broadcast", "room": "h", "data": text}); err != nil {
			t.Fatal(err)
		}
	}
	say("one")
	ann.sees("<backend> one\n")
	r.cut(true)
	ann.sees("the connection broke: ")
	say("two")
	ann.types("typed meanwhile")
	r.open()
	ann.sees("the session is resumed: 2 rooms")
	ann.sees("[h] 1 message from the history")
	ann.sees("[plain] the room has no history: what was said meanwhile is gone")
	ann.sees("<backend> two\n")
	ann.sees("[h] * sent to 0 members\n")
	r.cut(true)
	for _, text := range []string{"four", "five", "six", "seven", "eight"} {
		say(text)
	}
	r.open()
	ann.sees("[h] messages 4 to 5 are gone")
	ann.sees("<backend> eight\n")
	r.cut(false)
	ann.sees("[h] nothing was missed")
	var got []string
	for _, m := range regexp.MustCompile(`<backend> (\w+)\n`).FindAllStringSubmatch(ann.out.String(), -1) {
		got = append(got, m[1])
	}
	if want := "one two six seven eight"; strings.Join(got, " ") != want {
		t.Errorf("%q instead of %s", got, want)
	}
	ann.types("/quit")
	if err := ann.end(); err != nil {
		t.Error(err)
	}
}

// A session that is gone is not the end: the rooms are joined from where the client was.
func TestSessionIsGone(t *testing.T) {
	s := serve(t, func(c *engine.Config) { c.History, c.ReconnectionMaxAttempts = []string{"h"}, 1 })
	r := relayTo(t, s.Addr().String())
	ann := sit(t, r.address(), inRooms("h"))
	ann.sees("joined: 1 member")
	r.cut(false)
	ann.sees("[h] nothing was missed")
	ann.types("/ping")
	ann.sees("pong after")
	r.cut(true)
	if _, err := s.Broadcast("h", engine.M{"type": "broadcast", "room": "h", "data": "missed"}); err != nil {
		t.Fatal(err)
	}
	r.open()
	ann.sees("the session is gone (attempts_exhausted)")
	ann.sees("<backend> missed\n")
}

// The newest messages come with the first join, if they are asked for.
func TestLast(t *testing.T) {
	s := serve(t, func(c *engine.Config) { c.History = []string{"h"} })
	for _, text := range []string{"one", "two", "three"} {
		if _, err := s.Broadcast("h", engine.M{"type": "broadcast", "room": "h", "data": text}); err != nil {
			t.Fatal(err)
		}
	}
	ann := sit(t, s.Addr().String(), func(o *Options) { o.Rooms, o.Last = []string{"h"}, 2 })
	ann.sees("[h] 2 messages from the history")
	ann.sees("<backend> three\n")
	if strings.Contains(ann.out.String(), "one") {
		t.Error(ann.out.String())
	}
	ann.types(`/raw {"type":"history","room":"h","limit":1}`)
	ann.sees("history: 1 message; the room has kept numbers 1 to 3")
}

// --json prints what arrives, one message a line; the client's own pings are left out. --raw prints both directions.
func TestForms(t *testing.T) {
	s := serve(t, nil)
	ann := sit(t, s.Addr().String(), func(o *Options) { o.Rooms, o.Form = []string{"lobby"}, JSON })
	ann.sees(`"joined"`)
	bob := sit(t, s.Addr().String(), func(o *Options) { o.Rooms, o.Form = []string{"lobby"}, Raw })
	bob.sees(`<- {"type":"joined","room":"lobby","members":2,"ref":"parley-1"}`)
	bob.types("hello")
	bob.sees(`-> {"type":"broadcast","room":"lobby","data":"hello","ref":"parley-2"}`)
	bob.sees(`<- {"type":"broadcast_sent","room":"lobby","recipients":1,"ref":"parley-2"}`)
	ann.sees(`"data":"hello"`)
	bob.types("/quit")
	if err := bob.end(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"-> close 1000\n", "<- close 1000"} {
		bob.sees(want)
	}
	ann.sees(`"member_left"`)
	ann.in.Close()
	if err := ann.end(); err != nil {
		t.Error(err)
	}
	types := ""
	for line := range strings.Lines(ann.out.String()) {
		var m struct{ Type string }
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Errorf("%v: %s", err, line)
		}
		types += m.Type + " "
	}
	if want := "connected reconnect_token joined member_joined broadcast member_left "; types != want {
		t.Errorf("%q instead of %q", types, want)
	}
}

// A server of another kind can be spoken to with --raw.
func TestRawWithoutGreeting(t *testing.T) {
	s := serve(t, func(c *engine.Config) { c.Bare = true }, func(s *engine.Server) {
		s.OnRaw(func(_ *engine.Conn, payload []byte, _ bool) []byte { return payload })
	})
	ann := sit(t, s.Addr().String(), func(o *Options) { o.Form = Raw })
	ann.types("/raw hello")
	ann.sees("-> hello\n<- hello\n")
}

// A server that refuses the client, or sends it away for good, ends it with the exit code for that.
func TestSentAway(t *testing.T) {
	for code, want := range map[ws.StatusCode]int{4001: client.Refused, 4004: client.Refused, 4006: client.Refused, 4007: client.Refused, 4600: client.Refused} {
		s := serve(t, nil, func(s *engine.Server) {
			s.OnConnect(func(*engine.Conn, *engine.Request) error { return engine.Refuse(code, "go \x1b[31m away") })
		})
		ann := sit(t, s.Addr().String(), nil)
		err := ann.end()
		if codeOf(err) != want || !strings.Contains(err.Error(), strconv.Itoa(int(code))) || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%d: %v", code, err)
		}
	}
}

// A token is shown, and read again for the next connection.
func TestToken(t *testing.T) {
	shown := make(chan string, 16)
	s := serve(t, nil, func(s *engine.Server) {
		s.OnConnect(func(_ *engine.Conn, r *engine.Request) error {
			token := strings.TrimPrefix(r.Header("Authorization"), "Bearer ")
			if shown <- token; token != "second" {
				return engine.Refuse(4006, "expired")
			}
			return nil
		})
	})
	tokens := []string{"first", "first", "second"}
	ann := sit(t, s.Addr().String(), func(o *Options) {
		o.Token = func() (string, error) {
			token := tokens[0]
			if len(tokens) > 1 {
				tokens = tokens[1:]
			}
			return token, nil
		}
	})
	err := ann.end() // the second look finds the same token
	if codeOf(err) != client.Refused || !strings.Contains(err.Error(), "has expired") {
		t.Error(err)
	}
	tokens = []string{"first", "second"}
	bob := sit(t, s.Addr().String(), func(o *Options) {
		o.Token = func() (string, error) {
			token := tokens[0]
			if len(tokens) > 1 {
				tokens = tokens[1:]
			}
			return token, nil
		}
	})
	bob.sees("connected as ")
	if first, second, third := <-shown, <-shown, <-shown; first+" "+second+" "+third != "first first second" {
		t.Error(first, second, third)
	}
}

// A server that wants a token ends a client that has none; one that has shows it in the first message.
func TestTokenInMessage(t *testing.T) {
	s := serve(t, nil, func(s *engine.Server) {
		s.OnAuth(func(_ *engine.Conn, token string) error {
			if token != "good" {
				return errors.New("no")
			}
			return nil
		})
	})
	err := sit(t, s.Addr().String(), inRooms("lobby")).end()
	if codeOf(err) != client.Refused || !strings.Contains(err.Error(), "demands an access token") {
		t.Error(err)
	}
	err = sit(t, s.Addr().String(), func(o *Options) { o.Token = func() (string, error) { return "bad", nil } }).end()
	if codeOf(err) != client.Refused || !strings.Contains(err.Error(), "4001") {
		t.Error(err)
	}
	ann := sit(t, s.Addr().String(), func(o *Options) {
		o.Rooms, o.Form = []string{"lobby"}, Raw
		o.Token = func() (string, error) { return "good", nil }
	})
	ann.sees(`<- {"type":"joined","room":"lobby"`)
	if out := ann.out.String(); !strings.Contains(out, `-> {"type":"auth","token":"(the token)"`) || strings.Contains(out, "good") {
		t.Error(out)
	}
}

// A reader of the output that is gone ends the client, with a close frame.
func TestOutputIsGone(t *testing.T) {
	left := make(chan ws.StatusCode, 1)
	address := played(t, func(conn net.Conn) {
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(greeting)))
		left <- untilClose(conn)
	})
	reader, out := io.Pipe()
	ann := sit(t, address, func(o *Options) { o.Out, o.Limits.Close = out, time.Second })
	if _, err := reader.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	reader.Close()
	if err := ann.end(); codeOf(err) != client.Failed || !strings.Contains(err.Error(), "write what arrives") {
		t.Error(err)
	}
	if code := <-left; code != ws.StatusNormalClosure {
		t.Errorf("it left with %d", code)
	}
}

// The table of close codes in docs/clients.md is what the client does.
func TestCloseCodes(t *testing.T) {
	text, err := os.ReadFile("../../../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|]+) \| [^|]+ \| (yes|no)\b`).FindAllStringSubmatch(string(text), -1) {
		for _, code := range regexp.MustCompile(`\d{4}`).FindAllString(row[1], -1) {
			n++
			number, _ := strconv.Atoi(code)
			if stays := farewell(ws.StatusCode(number)) != ""; stays != (row[2] == "no") {
				t.Errorf("%s: docs/clients.md says %q to coming back, and the client stays away: %v", code, row[2], stays)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d codes found: the search is wrong", n)
	}
}

// The wait is a random part of a bound that doubles, never ends before the server's time, and starts again after a while.
func TestRetry(t *testing.T) {
	now := time.Unix(1_790_000_000, 0)
	r := retry{min: 500 * time.Millisecond, max: 20 * time.Second, calm: 5 * time.Second}
	for n := range 1000 {
		if d, bound := r.next(now), min(20*time.Second, 500*time.Millisecond<<min(n, 10)); d < 0 || d >= bound {
			t.Fatalf("failure %d: %v", n, d)
		}
	}
	r.openSince = now
	r.goodbye(7*time.Second, now)
	if d := r.next(now.Add(5 * time.Second)); d < 2*time.Second || d >= 2500*time.Millisecond || r.failures != 1 {
		t.Errorf("%v after goodbye, %d failures", d, r.failures)
	}
}
