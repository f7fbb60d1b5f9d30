package engine

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// historic makes a script whose rooms named h... have a history.
func historic(t testing.TB, entry string) *script {
	return newScript(t, func(c *Config) { c.History = []string{entry} })
}

// placed is the part of a server's message that is about positions.
type placed struct {
	Type, Room, Epoch, Why string
	Seq                    *uint64
	From                   json.RawMessage // a number, or in a broadcast the sender
	Until                  uint64
	Recovered              *bool
	Gap                    bool
	Missing                json.RawMessage
	Positions              map[string]struct {
		Seq, Until uint64
		Epoch      string
	}
	Repeats   map[string]uint64
	Gaps      []string
	Rooms     []string
	Duplicate *Position
	Data      json.RawMessage
	Code      string
}

// news is a message of the application.
type news struct {
	Type string `json:"type"`
	Room string `json:"room"`
	I    int    `json:"i"`
	Pad  string `json:"pad"`
}

func newsOf(room string, i int, pad string) news { return news{"news", room, i, pad} }

// follower holds a client's messages to the promise of rooms with history: each number once, in order, as a message, an own
// answer, a skip or a gap.
type follower struct {
	t      testing.TB
	name   string
	at     map[string]Position
	frames map[Position]string // of all followers: what stands under a number
	last   map[string]string   // what arrived, by room
}

func (f *follower) take(texts []string) {
	f.t.Helper()
	for _, x := range texts {
		f.t.Logf("%s reads %.60s...%s", f.name, x, x[max(0, len(x)-60):])
	}
	for _, text := range texts {
		var m placed
		if strings.HasPrefix(text, "close") {
			continue
		}
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			f.t.Fatalf("%v: %.200s", err, text)
		}
		f.one(&m, text)
	}
}

func (f *follower) one(m *placed, text string) {
	f.t.Helper()
	switch m.Type {
	case "joined", "position":
		delete(f.at, m.Room)
		if m.Epoch != "" {
			f.at[m.Room] = Position{Seq: *m.Seq, Epoch: m.Epoch}
		}
		return
	case "reconnected":
		for room, p := range m.Positions {
			f.at[room] = Position{Seq: p.Seq, Epoch: p.Epoch}
		}
		return
	case "left":
		delete(f.at, m.Room)
		return
	}
	if m.Seq == nil {
		return
	}
	at, in := f.at[m.Room]
	from := *m.Seq
	if first, err := strconv.ParseUint(string(m.From), 10, 64); err == nil {
		from = first
	}
	if !in && m.Type == "broadcast_sent" {
		return // an answer to a message from before the leave
	}
	if !in || at.Epoch != m.Epoch || from != at.Seq+1 || *m.Seq < from {
		f.t.Fatalf("%s is at %+v, and gets %.80s...%s", f.name, at, text, text[max(0, len(text)-90):])
	}
	f.at[m.Room] = Position{Seq: *m.Seq, Epoch: m.Epoch}
	if m.Type == "broadcast" || m.Type == "news" {
		key := Position{Seq: *m.Seq, Epoch: m.Epoch}
		if before, known := f.frames[key]; known && before != text {
			f.t.Fatalf("%s gets %.200s, and others got %.200s", f.name, text, before)
		}
		f.frames[key] = text
	}
}

func follow(t testing.TB) func(name string) *follower {
	frames := map[Position]string{}
	return func(name string) *follower {
		return &follower{t: t, name: name, at: map[string]Position{}, frames: frames}
	}
}

// Each row of the table of starts.
func TestHistoryStarts(t *testing.T) {
	w := historic(t, "h=messages:3")
	ann, bob := w.open(0), w.open(1)
	for _, c := range []*Conn{ann, bob} {
		w.say(c, `{"type":"join","room":"h"}`)
	}
	w.drain()
	epoch := func(texts []string) string {
		var m placed
		json.Unmarshal([]byte(texts[len(texts)-1]), &m)
		return m.Epoch
	}(w.expect(ann, "connected reconnect_token joined member_joined")[:3])
	for i := range 5 {
		w.say(ann, fmt.Sprintf(`{"type":"broadcast","room":"h","data":%d,"ref":%d}`, i+1, i))
		w.drain()
	}
	sent := w.expect(ann, "broadcast_sent broadcast_sent broadcast_sent broadcast_sent broadcast_sent")
	if want := `{"type":"broadcast_sent","room":"h","recipients":1,"seq":1,"epoch":"` + epoch + `","ref":0}`; sent[0] != want {
		t.Errorf("%s\nwant %s", sent[0], want)
	}
	live := w.expect(bob, "connected reconnect_token joined broadcast broadcast broadcast broadcast broadcast")
	for since, want := range map[string]string{
		``:                              `"seq":5,"epoch":"E"}`,
		`{"last":1}`:                    `"seq":4,"epoch":"E","until":5} 5`,
		`{"last":9}`:                    `"seq":2,"epoch":"E","until":5} 3 4 5`,
		`{"seq":5,"epoch":"E"}`:         `"seq":5,"epoch":"E","until":5,"recovered":true}`,
		`{"seq":2,"epoch":"E","x":[1]}`: `"seq":2,"epoch":"E","until":5,"recovered":true} 3 4 5`,
		`{"seq":1,"epoch":"E"}`:         `"seq":2,"epoch":"E","until":5,"recovered":false,"gap":true,"missing":{"from":2,"to":2}} 3 4 5`,
		`{"seq":0,"epoch":"E"}`:         `"seq":2,"epoch":"E","until":5,"recovered":false,"gap":true,"missing":{"from":1,"to":2}} 3 4 5`,
		`{"seq":6,"epoch":"E"}`:         `"seq":5,"epoch":"E","until":5,"recovered":false,"gap":true}`,
		`{"seq":4,"epoch":"other"}`:     `"seq":5,"epoch":"E","until":5,"recovered":false,"gap":true}`,
	} {
		c := w.open(0)
		w.read(c)
		text := `{"type":"join","room":"h"}`
		if since != "" {
			text = `{"type":"join","room":"h","since":` + strings.ReplaceAll(since, "E", epoch) + `}`
		}
		w.say(c, text)
		w.drain()
		got := w.read(c)
		_, rest, _ := strings.Cut(got[0], `,"members":3,`)
		rest = strings.ReplaceAll(rest, epoch, "E")
		for _, m := range got[1:] {
			var x placed
			json.Unmarshal([]byte(m), &x)
			rest += fmt.Sprint(" ", *x.Seq)
			if m != live[*x.Seq+2] {
				t.Errorf("replayed %s, sent %s", m, live[*x.Seq+2])
			}
		}
		if rest != want {
			t.Errorf("since %s: %s, want %s", since, rest, want)
		}
		w.server.Gone(c)
		w.drain()
	}
	for _, bad := range []string{`1`, `null`, `{}`, `{"seq":1}`, `{"epoch":"E"}`, `{"seq":-1,"epoch":"E"}`, `{"seq":1.0,"epoch":"E"}`, `{"seq":1,"seq":1,"epoch":"E"}`,
		`{"seq":9007199254740992,"epoch":"E"}`, `{"last":0}`, `{"last":1,"seq":1,"epoch":"E"}`, `{"seq":1,"epoch":""}`, `{"seq":1,"epoch":"a b"}`} {
		c := w.open(0)
		w.read(c)
		w.say(c, `{"type":"join","room":"h","since":`+bad+`}`)
		w.drain()
		if got := w.read(c); len(got) != 1 || !strings.Contains(got[0], `"code":"invalid_message"`) {
			t.Errorf("since %s: %v", bad, got)
		}
		if n := w.server.Server.Rooms().Len(); n != 1 {
			t.Error("a refused join made a room")
		}
		w.server.Gone(c)
	}
}

// A member that does not read is behind, costs one piece, and gets everything, or exactly the gap.
func TestHistoryBehind(t *testing.T) {
	for _, slow := range []string{"drop", "disconnect", "conflate"} {
		t.Run(slow, func(t *testing.T) {
			w := historic(t, "h=messages:40;bytes:10000000;slow:"+slow)
			s := w.server.Server
			newFollower := follow(t)
			ann, bob := w.open(0), w.open(1)
			fa, fb := newFollower("ann"), newFollower("bob")
			for _, c := range []*Conn{ann, bob} {
				w.say(c, `{"type":"join","room":"h"}`)
			}
			w.drain()
			fa.take(w.read(ann))
			fb.take(w.read(bob))
			w.takes[int(bob.wire.Fd)] = 100
			pad := strings.Repeat("x", 10_000)
			for i := range 60 {
				if err := s.Publish("h", newsOf("h", i, pad), BroadcastOptions{Key: fmt.Sprint("k", i%2)}); err != nil {
					t.Fatal(err)
				}
				w.drain()
			}
			if bob.Cause() != CauseNone {
				t.Fatal("a member that is behind was ended:", bob.Cause())
			}
			if n := bob.wire.Backlog; n > 2*(64<<10)+20_000 {
				t.Errorf("%d bytes wait for a member that is behind", n)
			}
			fa.take(w.read(ann))
			w.say(bob, `{"type":"broadcast","room":"h","data":"mine"}`)
			w.drain()
			delete(w.takes, int(bob.wire.Fd))
			w.server.Writable(bob)
			w.drain()
			texts := w.read(bob)
			if slow == "disconnect" {
				if got := kinds(texts); !strings.HasSuffix(got, "close 4003") {
					t.Error(got)
				}
				return
			}
			fb.take(texts)
			if at := fb.at["h"]; at.Seq != 61 {
				t.Errorf("bob is at %+v at the end", at)
			}
			count := strings.Count(kinds(texts), "gap")
			if count != 1 {
				t.Errorf("%d gaps: %s", count, kinds(texts))
			}
			if got := strings.Count(kinds(texts), "skip"); slow == "conflate" && got == 0 {
				t.Error("nothing was conflated", kinds(texts))
			}
			if !strings.HasSuffix(kinds(texts), "broadcast_sent") {
				t.Error("the answer to the own message is not the last:", kinds(texts))
			}
			fa.take(w.read(ann))
			s.Broadcast("h", newsOf("h", 0, ""))
			w.drain()
			fb.take(w.expect(bob, "news"))
		})
	}
}

// A session goes on where the client says, or where its connection began, with what may be repeated.
func TestHistoryResume(t *testing.T) {
	w := historic(t, "h*=messages:10")
	s := w.server.Server
	newFollower := follow(t)
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.say(c, `{"type":"join","room":"plain"}`)
	w.drain()
	f := newFollower("first")
	f.take(w.read(c))
	for i := range 3 {
		s.Broadcast("h", newsOf("h", i, ""))
	}
	w.drain()
	w.say(c, `{"type":"broadcast","room":"h","data":"own"}`)
	w.drain()
	f.take(w.read(c))
	token, epoch := w.token(c), f.at["h"].Epoch
	w.server.Gone(c)
	w.drain()
	s.Broadcast("h", newsOf("h", 9, ""))
	w.drain()
	heir := w.open(1)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`","last":{"h":{"seq":2,"epoch":5}}}`)
	w.drain()
	if got := w.read(heir); len(got) != 1 || !strings.Contains(got[0], "invalid_message") {
		t.Fatal("a malformed position:", got)
	}
	w.say(heir, `{"type":"reconnect","token":"`+token+`","last":{"h":{"seq":2,"epoch":"`+epoch+`"},"elsewhere":7}}`)
	w.drain()
	texts := w.read(heir)
	if got, want := kinds(texts), "reconnected news skip news reconnect_token"; got != want {
		t.Fatalf("%s, want %s: %v", got, want, texts)
	}
	if want := `"rooms":["h","plain"],"gaps":["plain"],"positions":{"h":{"seq":2,"epoch":"` + epoch + `","until":5}}}`; !strings.HasSuffix(texts[0], want) {
		t.Errorf("%s\nwant %s", texts[0], want)
	}
	f.take(texts)

	token = w.token(heir)
	s.Broadcast("h", newsOf("h", 10, ""))
	w.drain()
	f.take(w.expect(heir, "news"))
	w.server.Gone(heir)
	w.drain()
	s.Broadcast("h", newsOf("h", 11, ""))
	last := w.open(0)
	w.read(last)
	w.say(last, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	texts = w.read(last)
	if got, want := kinds(texts), "reconnected news skip news news news reconnect_token"; got != want {
		t.Fatalf("%s, want %s: %v", got, want, texts)
	}
	if want := `"positions":{"h":{"seq":2,"epoch":"` + epoch + `","until":7}},"repeats":{"h":6}}`; !strings.HasSuffix(texts[0], want) {
		t.Errorf("%s\nwant %s", texts[0], want)
	}
	newFollower("last").take(texts)
}

// Keys, exceptions, messages without a number, and messages that cannot take one.
func TestHistoryPublishes(t *testing.T) {
	w := historic(t, "h*=messages:10")
	s := w.server.Server
	ann, bob := w.open(0), w.open(1)
	for _, c := range []*Conn{ann, bob} {
		w.say(c, `{"type":"join","room":"h"}`)
		w.say(c, `{"type":"join","room":"plain"}`)
	}
	w.drain()
	newFollower := follow(t)
	fa, fb := newFollower("ann"), newFollower("bob")
	fa.take(w.read(ann))
	fb.take(w.read(bob))
	for range 2 {
		w.say(ann, `{"type":"broadcast","room":"h","data":1,"idempotency_key":"k"}`)
		w.drain()
	}
	texts := w.expect(ann, "broadcast_sent broadcast_sent")
	if !strings.Contains(texts[1], `"recipients":0,"duplicate":{"seq":1,"epoch":"`) {
		t.Error(texts[1])
	}
	fa.take(texts)
	fb.take(w.expect(bob, "broadcast"))
	w.say(bob, `{"type":"broadcast","room":"h","data":1,"idempotency_key":"k"}`) // another session
	w.say(bob, `{"type":"broadcast","room":"plain","data":1,"idempotency_key":"k"}`)
	w.say(bob, `{"type":"broadcast","room":"plain","data":1,"key":5,"key":6,"history":9}`)
	w.say(bob, `{"type":"broadcast","room":"h","data":1,"key":5}`)
	w.say(bob, `{"type":"broadcast","room":"h","data":1,"history":false,"history":false}`)
	w.say(bob, `{"type":"broadcast","room":"h","data":1,"history":false}`)
	w.drain()
	texts = w.read(bob)
	if got, want := kinds(texts), "broadcast_sent error broadcast_sent error error broadcast_sent"; got != want {
		t.Fatalf("%s, want %s: %v", got, want, texts)
	}
	for i, code := range map[int]string{1: "no_history", 3: "invalid_message", 4: "invalid_message"} {
		if !strings.Contains(texts[i], code) {
			t.Errorf("%s, want %s", texts[i], code)
		}
	}
	if strings.Contains(texts[5], "seq") {
		t.Error("a message without history has a number:", texts[5])
	}
	fb.take(texts)
	fa.take(w.expect(ann, "broadcast broadcast broadcast"))

	done := 0
	for v, want := range map[any]error{"text": ErrNotObject, 5: ErrNotObject} {
		if err := s.Publish("h", v, BroadcastOptions{Done: func(Published, error) { done++ }}); err != want {
			t.Errorf("%v: %v", v, err)
		}
	}
	for _, m := range []M{{"seq": 1}, {"epoch": "x"}} {
		if _, err := s.Broadcast("h", m); err != ErrNotObject {
			t.Errorf("%v: %v", m, err)
		}
	}
	if err := s.Publish("plain", M{}, BroadcastOptions{IdempotencyKey: "k"}); err != ErrNoHistory {
		t.Error(err)
	}
	var p Published
	if err := s.Publish("h", M{}, BroadcastOptions{Except: []string{ann.ID()}, IdempotencyKey: "k", Done: func(got Published, _ error) { p = got; done++ }}); err != nil || p.Seq != 3 || p.Members != 2 || done != 3 {
		t.Error(err, p, done)
	}
	w.drain()
	if got := w.read(ann); len(got) != 1 || !strings.HasSuffix(got[0], `"why":"excluded"}`) {
		t.Error(got)
	}
	if got := w.read(bob); len(got) != 1 || !strings.HasPrefix(got[0], `{"seq":3,"epoch":"`) {
		t.Error(got)
	}
	if err := s.BroadcastRooms([]string{"h", "h2", "plain", "h"}, M{"type": "news"}); err != nil {
		t.Error(err)
	}
	w.drain()
	w.expect(ann, "news news")
	if _, err := s.History(t.Context(), "plain", HistoryQuery{}); err != ErrNoHistory {
		t.Error(err)
	}
	page, err := s.History(t.Context(), "h2", HistoryQuery{})
	if err != nil || page.Top != 1 || page.Low != 1 || len(page.Messages) != 1 || page.Messages[0].Seq != 1 || !strings.HasPrefix(string(page.Messages[0].Message), `{"type":"news","seq":1,`) {
		t.Errorf("%v %+v", err, page)
	}
}
