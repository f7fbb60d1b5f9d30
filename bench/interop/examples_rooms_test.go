package interop

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	gorilla "github.com/gorilla/websocket"
)

// sits starts the game with a time that seats are kept, and returns what connects a player.
func sits(t *testing.T, e *terminal, keep string) (player func(user string) *person) {
	t.Helper()
	shown := e.example("game", "go run ./docs/examples/game", fmt.Sprintf("%s -port %d -keep %s", goExample(t, "game"), e.port, keep))
	tokens := map[string]string{"ann": aToken.FindString(shown)}
	return func(user string) *person {
		t.Helper()
		if tokens[user] == "" {
			tokens[user] = e.token(user)
		}
		return dialed(t, e.ws()+"?token="+tokens[user], nil)
	}
}

// joins asks for a room, and returns the code of the refusal, empty for none.
func (p *person) joins(room string) (code string) {
	p.t.Helper()
	p.say(`{"type":"join","room":"%s","ref":"join"}`, room)
	for {
		raw, err := p.c.read()
		if err != nil {
			p.t.Fatal(err)
		}
		var m struct{ Ref, Code string }
		if json.Unmarshal(raw, &m); m.Ref == "join" {
			return m.Code
		}
	}
}

// table waits until the table has so many sticks and it is the user's turn.
func (p *person) table(sticks int, turn string) map[string]any {
	p.t.Helper()
	for {
		if m := p.until("table"); m["sticks"] == float64(sticks) && m["turn"] == turn {
			return m
		}
	}
}

// In the game a third player finds the table full, also while a player is cut off, who gets the seat back by a resume. Moves out of
// turn, moves that the rules do not have, and moves of strangers are refused. The player with the last stick wins.
func TestExampleGame(t *testing.T) {
	t.Parallel()
	e := begun(t, false)
	player := sits(t, e, "1m")
	ann, eve := player("ann"), player("eve")
	if code := ann.joins("table"); code != "" {
		t.Fatal(code)
	}
	ann.asks(`{"type":"take","sticks":1}`, "waiting")
	bob := player("bob")
	if code := bob.joins("table"); code != "" {
		t.Fatal(code)
	}
	if code := eve.joins("table"); code != "room_full" {
		t.Errorf("a third player is answered %q", code)
	}
	if code := eve.joins("den"); code != "forbidden" {
		t.Errorf("a room besides the table is answered %q", code)
	}
	bob.asks(`{"type":"take","sticks":1}`, "not_your_turn")
	eve.asks(`{"type":"take","sticks":1}`, "not_your_turn")
	ann.asks(`{"type":"take","sticks":4}`, "bad_move")
	ann.asks(`{"type":"take","sticks":0}`, "bad_move")
	ann.say(`{"type":"take","sticks":3}`)
	bob.table(18, "bob")

	ann.c.reset()
	bob.until("member_left")
	if code := eve.joins("table"); code != "room_full" {
		t.Errorf("while a player is cut off, a third one is answered %q", code)
	}
	old := ann
	ann = player("ann")
	ann.say(`{"type":"reconnect","token":"%s"}`, old.token)
	if m := ann.until("reconnected"); fmt.Sprint(m["rooms"]) != "[table]" {
		t.Errorf("the resume is answered %v", m)
	}
	ann.table(18, "bob")

	turn, other := "bob", "ann"
	for sticks := 15; sticks >= 0; sticks -= 3 {
		map[string]*person{"ann": ann, "bob": bob}[turn].say(`{"type":"take","sticks":3}`)
		turn, other = other, turn
		if sticks > 0 {
			ann.table(sticks, turn)
		}
	}
	if m := ann.table(21, turn); m["winner"] != other {
		t.Errorf("%s has taken the last stick: %v", other, m)
	}

	bob.say(`{"type":"leave","room":"table"}`)
	bob.until("left")
	window := player("ann")
	if code := window.joins("table"); code != "" {
		t.Error(code)
	}
	ann.until("left") // the newer window plays
	if code := eve.joins("table"); code != "" {
		t.Errorf("when a player has left, another one is answered %q", code)
	}
	stranger, _, err := gorilla.DefaultDialer.Dial(e.ws()+"?token=x", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	(&person{t: t, c: &gorillaClient{stranger}}).refused()
}

// The seat of a player that stays away is given to another one.
func TestExampleGameGivesSeats(t *testing.T) {
	e := begun(t, false)
	player := sits(t, e, "1ms")
	ann, bob, eve := player("ann"), player("bob"), player("eve")
	if ann.joins("table") != "" || bob.joins("table") != "" || eve.joins("table") != "room_full" {
		t.Fatal("the table does not have two seats")
	}
	ann.c.reset()
	eventually(t, "the seat is free", func() bool { return eve.joins("table") == "" })
	if m := bob.until("member_joined"); m["user"] != "eve" {
		t.Errorf("%v", m)
	}
}

// lazy is a client with a small buffer in its kernel, that reads when the test does.
func lazy(t *testing.T, address string) *person {
	t.Helper()
	small := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if fault := raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10) }); fault != nil {
			return fault
		}
		return err
	}}
	conn, _, err := (&gorilla.Dialer{NetDialContext: small.DialContext}).Dial(address, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &person{t: t, c: &gorillaClient{conn}}
}

// A client of the ticker that does not read for fifty rounds gets one price of each symbol, the newest, and is told that the others are
// skipped. It may not publish. The page shows prices that change.
func TestExampleTicker(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	e := openTerminal(t)
	commands := strings.SplitAfter(blocks(t, "docs/examples/ticker/README.md", "")[0], "\n")
	e.enter(commands[0] + commands[1])
	e.serving()
	slow := lazy(t, e.ws())
	if code := slow.joins("prices"); code != "" {
		t.Fatal(code)
	}
	slow.asks(`{"type":"broadcast","room":"prices","data":1}`, "forbidden")
	slow.asks(`{"type":"chat","room":"prices","text":"x"}`, "unknown_type")
	if code := slow.joins("den"); code != "forbidden" {
		t.Errorf("another room is answered %q", code)
	}

	b := &backend{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", e.api), key: strings.TrimSpace(e.enter("echo $PARLEY_API_KEY"))}
	l := &launched{t: t, admin: e.admin}
	eventually(t, "the kernel takes nothing more for the client", func() bool {
		b.post("/v1/publish", `{"room":"prices","key":"pad","data":"`+strings.Repeat("x", 60_000)+`"}`)
		return l.metric("parley_members_behind", "") > 0
	})
	e.enter(replaced(t, commands[2], " --http 8000 &", " --pause 0 --rounds 50"))
	seen, skipped := map[string]int{}, 0
	for len(seen) < 4 {
		raw, err := slow.c.read()
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Type, Why string
			From, Seq int
			Data      json.RawMessage
		}
		var price struct {
			Symbol string
			Round  int
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		switch json.Unmarshal(m.Data, &price); {
		case m.Type == "gap":
			t.Fatalf("the client is told a gap: %s", raw)
		case m.Type == "skip" && m.Why == "conflated":
			skipped += m.Seq - cmp.Or(m.From, m.Seq) + 1 // several numbers in a row come as one skip
		case price.Symbol != "":
			seen[price.Symbol]++
			if price.Round != 50 {
				t.Fatalf("the client got %s, which is not the newest of its symbol", raw)
			}
		}
	}
	if skipped < 4*49 || fmt.Sprint(seen) != "map[copper:1 gold:1 silver:1 tin:1]" {
		t.Errorf("%d are skipped, and the client got %v", skipped, seen)
	}
	e.enter(replaced(t, commands[2], " 8000 &", fmt.Sprintf(" %d &", e.web)))
	pricesInBrowser(t, e)
}

func pricesInBrowser(t *testing.T, e *terminal) {
	t.Helper()
	page := fmt.Sprintf("http://127.0.0.1:%d/", e.web)
	answering(t, page)
	w := browse(t, page)
	const cells = "[...document.querySelectorAll('td:nth-child(2)')].map((c) => c.textContent)"
	w.becomes(cells+".length", "4")
	before := w.evaluate(cells)
	eventually(t, "the prices change", func() bool { return w.evaluate(cells) != before })
	w.photograph("example-ticker")
}

// A private message reaches all devices of its user and the other devices of the sender, once, also if it is sent again. The sender is
// told whether the user is online. A user that was offline reads the message later. Nobody reads or writes the room of another user.
func TestExamplePrivate(t *testing.T) {
	t.Parallel()
	e := begun(t, false)
	shown := e.example("private", "go run ./docs/examples/private", fmt.Sprintf("%s -port %d", goExample(t, "private"), e.port))
	tokens := map[string]string{"ann": aToken.FindString(shown), "bob": e.token("bob"), "carol": e.token("carol")}
	device := func(user string) *person {
		t.Helper()
		p := dialed(t, e.ws(), nil, "parley.v1", "parley.token."+tokens[user])
		if m := p.until("joined"); m["room"] != "user:"+user {
			t.Errorf("%v", m)
		}
		return p
	}
	phone, laptop := device("ann"), device("ann")
	devices := []*person{device("bob"), device("bob")}
	for range 2 { // the second is a repetition, as after a drop
		phone.say(`{"type":"private","to":"bob","text":"psst","id":"1"}`)
		if m := phone.until("private_sent"); m["online"] != true || m["devices"] != 2.0 {
			t.Errorf("the sender is told %v", m)
		}
	}
	phone.say(`{"type":"private","to":"bob","text":"more","id":"2"}`)
	phone.until("private_sent")
	for _, text := range []string{"psst", "more"} {
		for i, p := range append(devices, laptop) {
			if m := p.until("private"); m["text"] != text || m["from"] != "ann" || i == 2 && m["to"] != "bob" {
				t.Errorf("device %d got %v in place of %q", i, m, text)
			}
		}
	}

	phone.say(`{"type":"private","to":"carol","text":"are you there?","id":"3"}`)
	if m := phone.until("private_sent"); m["online"] != false || m["devices"] != 0.0 {
		t.Errorf("the sender to an offline user is told %v", m)
	}
	carol := device("carol")
	carol.say(`{"type":"join","room":"user:carol","since":{"last":50}}`)
	if m := carol.until("private"); m["text"] != "are you there?" || m["from"] != "ann" {
		t.Errorf("who was offline got %v", m)
	}
	if code := carol.joins("user:bob"); code != "forbidden" {
		t.Errorf("the room of another user is answered %q", code)
	}
	carol.asks(`{"type":"broadcast","room":"user:carol","data":1}`, "forbidden")
	carol.asks(`{"type":"private","to":"bob","text":"","id":"4"}`, "invalid_message")
	carol.asks(`{"type":"private","to":"bob","text":"x"}`, "invalid_message")
}
