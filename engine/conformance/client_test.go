package conformance_test

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine/canary"
)

// position is a position as a client keeps it: the text that the server sent.
type position = map[string]any

// told is a message of the server, as a client reads it.
type told struct {
	Type, Room, Token, Code, Epoch, Why string
	Seq                                 *uint64
	From                                json.RawMessage // a number, or in a broadcast the sender
	Until                               uint64
	Gap                                 bool
	Missing                             json.RawMessage
	Gaps, Rooms                         []string
	Positions                           map[string]position
	Repeats                             map[string]uint64
}

// page is the client of docs/wire.md, line by line: the comments in open are its text. It drops its connections at random.
type page struct {
	t     *testing.T
	url   string
	keeps bool // it keeps its positions; else it names none
	talks bool // it also says something whenever it is in the room

	token    string
	last     map[string]position
	calm     *atomic.Bool // no cuts any more
	cuts     atomic.Int64
	stop     context.Context
	received *ledger
}

// fragile is a connection that is reset when so many bytes have been read.
type fragile struct {
	net.Conn
	left int
	calm *atomic.Bool
	cuts *atomic.Int64
}

func (f *fragile) Read(b []byte) (int, error) {
	if f.left <= 0 && !f.calm.Load() {
		f.cuts.Add(1)
		f.Conn.(*net.TCPConn).SetLinger(0)
		f.Conn.Close()
		return 0, io.ErrUnexpectedEOF
	}
	if !f.calm.Load() {
		b = b[:min(len(b), f.left)]
	}
	n, err := f.Conn.Read(b)
	f.left -= n
	return n, err
}

// dial connects. What the server sent together with its handshake is read first.
func (p *page) dial() net.Conn {
	conn, early, _, err := ws.Dialer{}.Dial(p.stop, p.url)
	if err != nil {
		return nil
	}
	most := 4000
	if !p.keeps {
		most = 20_000 // more is replayed to it, in front of its next token
	}
	f := &fragile{Conn: conn, left: rand.IntN(most), calm: p.calm, cuts: &p.cuts}
	if early != nil {
		text, _ := early.Peek(early.Buffered())
		return &ahead{f, slices.Clone(text)}
	}
	return f
}

// ahead is a connection of which some bytes have been read already.
type ahead struct {
	*fragile
	text []byte
}

func (a *ahead) Read(b []byte) (int, error) {
	if len(a.text) > 0 {
		n := copy(b, a.text)
		a.text = a.text[n:]
		return n, nil
	}
	return a.fragile.Read(b)
}

// run is the client's life.
func (p *page) run() {
	// let token, last = {};
	p.last = map[string]position{}
	// (function open() {
	for p.stop.Err() == nil {
		p.open()
		// ws.onclose = () => setTimeout(open, 1000 * Math.random());
		// Here: at once. The server is to meet heirs whose predecessors still look alive.
	}
	// })();
}

func (p *page) open() {
	// const ws = new WebSocket(url), say = (m) => ws.send(JSON.stringify(m)), mine = token;
	conn := p.dial()
	if conn == nil {
		return
	}
	defer conn.Close()
	defer context.AfterFunc(p.stop, func() { conn.Close() })()
	say := func(m map[string]any) {
		for name, value := range m {
			if p, ok := value.(position); ok && p == nil {
				delete(m, name) // as JSON.stringify does with what is undefined
			}
		}
		text, _ := json.Marshal(m)
		wsutil.WriteClientText(conn, text)
	}
	mine := p.token
	join := func() {
		p.received.beginAnew()
		say(map[string]any{"type": "join", "room": "chat", "since": p.last["chat"]})
	}
	// ws.onopen = () => say(mine ? {type: "reconnect", token: mine, last} : {type: "join", room: "chat", since: last.chat});
	switch {
	case mine != "" && p.keeps:
		say(map[string]any{"type": "reconnect", "token": mine, "last": p.last})
	case mine != "":
		say(map[string]any{"type": "reconnect", "token": mine})
	default:
		join()
	}
	for {
		text, _, err := wsutil.ReadServerData(conn)
		if err != nil {
			return
		}
		// ws.onmessage = (e) => { const m = JSON.parse(e.data);
		var m told
		if err := json.Unmarshal(text, &m); err != nil {
			p.t.Errorf("%s: %v", text, err)
			return
		}
		p.received.take(&m, string(text))
		// if (m.type === "reconnect_token") token = m.token;
		if m.Type == "reconnect_token" {
			p.token = m.Token
		}
		// if (m.room && m.seq >= 0) last[m.room] = {seq: m.seq, epoch: m.epoch};
		if p.keeps && m.Room != "" && m.Seq != nil {
			p.last[m.Room] = position{"seq": *m.Seq, "epoch": m.Epoch}
		}
		// if (m.positions) Object.assign(last, m.positions);
		if p.keeps {
			for room, at := range m.Positions {
				p.last[room] = at
			}
		}
		// if (/^(invalid_token|attempts_exhausted)$/.test(m.code) || m.type === "reconnected" && !m.rooms.includes("chat"))
		if m.Code == "invalid_token" || m.Code == "attempts_exhausted" || m.Type == "reconnected" && !slices.Contains(m.Rooms, "chat") {
			// say({type: "join", room: "chat", since: last.chat});
			join()
		}
		// if (m.code === "unavailable") { token = mine; ws.close(); }
		if m.Code == "unavailable" {
			p.token = mine
			return
		}
		// if (m.type === "gap" || m.gap || m.gaps?.length) missing(m);       // says exactly what
		if m.Type == "gap" || m.Gap || len(m.Gaps) > 0 {
			p.received.missing(&m, string(text))
		}
		// if (m.type === "broadcast") show(m); };
		if m.Type == "broadcast" {
			p.received.show(&m, string(text))
		}
		if p.talks && (m.Type == "joined" || m.Type == "reconnected" && slices.Contains(m.Rooms, "chat")) {
			say(map[string]any{"type": "broadcast", "room": "chat", "data": "own"})
		}
	}
}

// The client that the test plays is the one of the document.
func TestClientIsDocumented(t *testing.T) {
	document, err := os.ReadFile("../../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("client_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(document), "```js\n")
	script, _, _ := strings.Cut(rest, "```")
	if n := strings.Count(script, "\n"); n < 12 {
		t.Fatalf("%d lines of a client found", n)
	}
	for line := range strings.Lines(script) {
		if !strings.Contains(string(source), "// "+strings.TrimSpace(line)+"\n") {
			t.Errorf("play %s", line)
		}
	}
}

// ledger is what a page has got, by number.
type ledger struct {
	mu       sync.Mutex
	t        *testing.T
	name     string
	exact    bool // nothing may come twice
	epoch    string
	at       uint64 // the number that the page is at
	began    uint64 // where the stretch begins in which it knows what it missed
	high     uint64 // the highest number of the stretch
	repeats  uint64
	shown    map[uint64]string
	own      map[uint64]bool
	lost     map[uint64]bool // told as missing
	anew     bool            // it has asked to join without a position
	restarts int             // times that it joined without a position, and cannot know what it missed
	resumes  int
}

func newLedger(t *testing.T, name string, exact bool) *ledger {
	return &ledger{t: t, name: name, exact: exact, shown: map[uint64]string{}, own: map[uint64]bool{}, lost: map[uint64]bool{}}
}

// take follows the positions.
func (x *ledger) take(m *told, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case m.Type == "joined":
		x.move(m.Epoch, *m.Seq, text)
	case m.Type == "reconnected" && m.Positions["chat"] != nil:
		x.resumes++
		at := m.Positions["chat"]
		x.move(at["epoch"].(string), uint64(at["seq"].(float64)), text)
		x.repeats = m.Repeats["chat"]
	case m.Seq != nil && m.Room == "chat":
		from := *m.Seq
		if first := json.RawMessage(m.From); m.Type != "broadcast" && len(first) > 0 {
			json.Unmarshal(first, &from)
		}
		if m.Epoch != x.epoch || from != x.at+1 {
			x.t.Errorf("%s is at %d, and gets %s", x.name, x.at, text)
		}
		x.at, x.high = *m.Seq, max(x.high, *m.Seq)
		for n := from; n <= *m.Seq && m.Type != "gap" && m.Type != "broadcast"; n++ {
			if m.Type == "skip" && m.Why != "own" {
				x.t.Errorf("%s gets %s", x.name, text)
			}
			x.own[n] = true
		}
	}
}

// beginAnew notes that the page asks to join. Without a position it cannot know what it missed: the answer, or that to the resume
// of the session that joined so, begins a new stretch.
func (x *ledger) beginAnew() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.anew = !x.exact || x.epoch == ""
}

// move is a position that is told on a new connection. If it is above the old one, missing must say so.
func (x *ledger) move(epoch string, seq uint64, text string) {
	if x.anew {
		x.complete(x.high)
		x.restarts++
		x.epoch, x.began, x.high, x.repeats, x.anew = epoch, seq, seq, 0, false
	}
	if epoch != x.epoch || x.exact && seq < x.at {
		x.t.Errorf("%s was at %d of %s, and gets %s", x.name, x.at, x.epoch, text)
	}
	x.at = seq
}

func (x *ledger) show(m *told, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	before, twice := x.shown[*m.Seq]
	if twice && (x.exact || before != text || *m.Seq > x.repeats) {
		x.t.Errorf("%s is shown %s, and was shown %s; numbers up to %d may come again", x.name, text, before, x.repeats)
	}
	if x.exact && x.lost[*m.Seq] {
		x.t.Errorf("%s was told that it misses %d, and is shown %s", x.name, *m.Seq, text)
	}
	x.shown[*m.Seq] = text
}

func (x *ledger) missing(m *told, text string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	var what struct{ From, To uint64 }
	var rooms map[string]struct{ From, To uint64 }
	switch m.Type {
	case "gap":
		json.Unmarshal(m.From, &what.From)
		what.To = *m.Seq
	case "reconnected":
		json.Unmarshal(m.Missing, &rooms)
		what = rooms["chat"]
	default:
		json.Unmarshal(m.Missing, &what)
	}
	if what.From == 0 || what.To < what.From {
		x.t.Errorf("%s is not told what is missing: %s", x.name, text)
		return
	}
	for n := what.From; n <= what.To; n++ {
		if x.exact && x.shown[n] != "" { // without positions the server does not know what arrived
			x.t.Errorf("%s is told that %d is missing, which it has: %s", x.name, n, text)
		}
		x.lost[n] = true
	}
}

// complete holds that each number of the stretch up to one has come, or was told as missing.
func (x *ledger) complete(to uint64) {
	unsaid := 0
	for n := x.began + 1; n <= to; n++ {
		if x.shown[n] == "" && !x.own[n] && !x.lost[n] {
			if unsaid++; unsaid < 5 {
				x.t.Errorf("%s misses %d, and was not told so", x.name, n)
			}
		}
	}
}

// settle holds what a page has got, up to a number, against the truth: what a witness got that was never cut.
func (x *ledger) settle(truth *ledger, to uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n, text := range x.shown {
		if n <= to && text != truth.shown[n] {
			x.t.Errorf("%s was shown %s, and others %s", x.name, text, truth.shown[n])
		}
	}
	x.complete(to)
	x.t.Logf("%s: %d shown, %d own, %d missing, %d resumes, %d joins without a position, of %d", x.name, len(x.shown), len(x.own), len(x.lost), x.resumes, x.restarts, to)
}

// The client of the wire protocol, on a server that resets its connections at random, misses nothing without being told: with
// positions everything comes once, and without them some comes twice, as far as repeats says.
func TestReturningClients(t *testing.T) {
	for name, history := range map[string]string{"long": "chat=messages:100000;bytes:64000000", "short": "chat=messages:4"} {
		t.Run(name, func(t *testing.T) { returnAgainAndAgain(t, history, name == "long") })
	}
}

func returnAgainAndAgain(t *testing.T, history string, complete bool) {
	srv := historicServer(t, history)
	url := "ws://" + srv.Addr().String() + "/"
	ctx, stop := context.WithCancel(t.Context())
	var calm, always atomic.Bool
	always.Store(true)
	var pages []*page
	var running sync.WaitGroup
	begin := func(name string, keeps, talks bool, calm *atomic.Bool) *page {
		p := &page{t: t, url: url, keeps: keeps, talks: talks, calm: calm, stop: ctx, received: newLedger(t, name, keeps)}
		running.Go(p.run)
		return p
	}
	defer func() {
		stop()
		running.Wait()
	}()
	witness := begin("the witness", true, false, &always)
	reached := func(p *page, seq uint64) {
		t.Helper()
		wait(t, p.received.name+" has caught up", func() bool {
			p.received.mu.Lock()
			defer p.received.mu.Unlock()
			return p.received.epoch != "" && p.received.at >= seq
		})
	}
	reached(witness, 0)
	pages = append(pages, begin("a page", true, false, &calm), begin("a page that talks", true, true, &calm),
		begin("a page without last", false, false, &calm), begin("a page without last that talks", false, true, &calm))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for n, begun := 0, canary.Now(); n < 300 || slices.ContainsFunc(pages, func(p *page) bool { return p.cuts.Load() < 25 }); n++ {
		<-tick.C
		if canary.Now()-begun > 60*time.Second {
			t.Fatal("the pages are not cut any more: they got stuck")
		}
		if _, err := srv.Broadcast("chat", map[string]any{"type": "broadcast", "room": "chat", "data": n}); err != nil {
			t.Fatal(err)
		}
	}
	calm.Store(true)
	top := topOf(t, srv)
	for _, p := range append(pages, witness) {
		reached(p, top)
	}
	if got := srv.StatsHere().Receipts; got["proven"] == 0 || got["false"] > 0 {
		t.Errorf("receipts: %v", got)
	}
	witness.received.mu.Lock()
	defer witness.received.mu.Unlock()
	for _, p := range pages {
		p.received.settle(witness.received, top)
		if complete && len(p.received.lost) > 0 {
			t.Errorf("%s is told gaps, and nothing had left the history", p.received.name)
		}
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if !canary.Wait(30*time.Second, ok) {
		t.Fatalf("not: %s", what)
	}
}
