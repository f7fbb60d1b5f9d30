package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/membership"
	"github.com/parleyd/parley/engine/internal/order"
	"github.com/parleyd/parley/engine/internal/settings"
	"github.com/parleyd/parley/protocol/ident"
)

// testOrder is a sequencer in this process, and the way between it and the workers.
type testOrder struct {
	t       testing.TB
	history string
	began   time.Time

	mu        sync.Mutex
	sequencer *order.Sequencer
	term      uint64
	followers []*testFollower
	silent    atomic.Bool // the sequencer takes nothing
}

type testFollower struct {
	o     *testOrder
	self  ident.Worker
	ring  chan struct{}
	heard chan func(*Server)
	loses atomic.Bool // the next entry is lost, and said to be
}

const sequencerInstance = 900

// startOrdered is startWorkers with rooms with history that a sequencer numbers.
func startOrdered(t testing.TB, n int, history string, change func(*Config)) (*testWorkers, *testOrder) {
	o := &testOrder{t: t, history: history, began: time.Now()}
	o.restart()
	ws := &testWorkers{t: t, order: o}
	ws.startBus()
	for range n {
		ws.start(func(cfg *Config) {
			cfg.History = []string{history}
			if change != nil {
				change(cfg)
			}
		}, nil)
	}
	return ws, o
}

// restart begins a new term, with nothing from before.
func (o *testOrder) restart() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.term++
	patterns, hint := settings.ParseHistory([]string{o.history})
	if hint != "" {
		o.t.Fatal(hint)
	}
	term, epochs := o.term, 0
	o.sequencer = order.NewSequencer(order.SequencerOptions{Term: term, Linger: time.Minute, History: patterns,
		Epoch: func() string { epochs++; return fmt.Sprintf("t%de%d", term, epochs) },
		Say: func(entry []byte) {
			raw := fleet.Append(nil, &fleet.Entry{Kind: fleet.Order, Body: fleet.Body{Payload: entry}})
			for _, f := range o.followers {
				f.hear(func(s *Server) {
					if f.loses.Swap(false) {
						s.worker.Missed(sequencerInstance)
					} else if err := s.worker.Receive(sequencerInstance, raw); err != nil {
						o.t.Error(err)
					}
				})
			}
		},
		Tell: func(to ident.Worker, piece []byte) {
			for _, f := range o.followers {
				if f.self == to {
					f.hear(func(s *Server) {
						if err := s.rooms.Order.HearPiece(piece); err != nil {
							o.t.Error(err)
						}
					})
				}
			}
		},
	})
}

func (f *testFollower) hear(what func(*Server)) {
	select {
	case f.heard <- what:
	default:
		f.o.t.Error("a follower is too slow for the test")
	}
}

// attach attaches a worker, which serves later.
func (o *testOrder) attach(s *Server, joins membership.Membership) {
	self := joins.Instance
	f := &testFollower{o: o, self: self, ring: make(chan struct{}, 1), heard: make(chan func(*Server), 1<<16)}
	joins.Order = func() {
		select {
		case f.ring <- struct{}{}:
		default:
		}
	}
	s.worker.Attach(joins)
	o.mu.Lock()
	o.followers = append(o.followers, f)
	o.mu.Unlock()
	stop := make(chan struct{})
	o.t.Cleanup(func() { close(stop) })
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				s.rooms.Order.Tick()
			case <-f.ring:
			}
			for {
				batch := s.rooms.Order.Outgoing(nil)
				if len(batch) == 0 {
					break
				}
				o.take(self, batch)
			}
		}
	}()
	go func() {
		for {
			select {
			case <-stop:
				return
			case what := <-f.heard:
				what(s)
			}
		}
	}()
}

func (o *testOrder) take(from ident.Worker, batch []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.silent.Load() {
		return
	}
	if err := o.sequencer.Take(from, batch, int64(time.Since(o.began))); err != nil {
		o.t.Error(err)
	}
}

// place is the position that a message tells.
func place(m map[string]any) Position {
	seq, _ := m["seq"].(float64)
	epoch, _ := m["epoch"].(string)
	return Position{Seq: uint64(seq), Epoch: epoch}
}

func sinceText(p Position) string {
	text, _ := json.Marshal(p)
	return string(text)
}

// Clients of two workers get one order, and each its answers in their places.
func TestOrderedOverWorkers(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:200", nil)
	const each = 50
	clients := []*client{dial(t, ws.list[0].Server), dial(t, ws.list[1].Server), dial(t, ws.list[1].Server)}
	for _, c := range clients {
		c.send(`{"type":"join","room":"chat"}`)
		if m := c.skipTo("joined"); place(m).Epoch == "" {
			t.Fatalf("joined without a position: %v", m)
		}
	}
	var all sync.WaitGroup
	orders := make([][]string, len(clients))
	for i, c := range clients {
		all.Go(func() {
			for n := range each {
				c.send(fmt.Sprintf(`{"type":"broadcast","room":"chat","data":"%d-%d","ref":%d}`, i, n, n))
			}
		})
		all.Go(func() {
			own := 0
			for at := uint64(1); at <= uint64(len(clients)*each); {
				m := c.next()
				if place(m).Epoch == "" {
					continue
				}
				if got := place(m).Seq; got != at {
					t.Errorf("client %d got %v, want number %d", i, m, at)
					return
				}
				at++
				switch m["type"] {
				case "broadcast_sent":
					if m["ref"] != float64(own) {
						t.Errorf("client %d: %v, want ref %d", i, m, own)
					}
					orders[i] = append(orders[i], fmt.Sprintf("%d-%d", i, own))
					own++
				case "broadcast":
					orders[i] = append(orders[i], m["data"].(string))
				}
			}
		})
	}
	all.Wait()
	for i := range orders {
		if !slices.Equal(orders[i], orders[0]) {
			t.Errorf("client %d has another order:\n%v\n%v", i, orders[i], orders[0])
		}
	}
}

// Who comes to another worker with a position gets what was missed, and nothing twice.
func TestOrderedSince(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:10", nil)
	ann := dial(t, ws.list[0].Server)
	ann.send(`{"type":"join","room":"chat"}`)
	start := place(ann.skipTo("joined"))
	for i := range 20 {
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"chat","data":%d}`, i))
		ann.skipTo("broadcast_sent")
	}
	for at, want := range map[uint64]string{15: "16 17 18 19 20", 10: "11 12 13 14 15 16 17 18 19 20", 20: "", 5: "gap 11 12 13 14 15 16 17 18 19 20"} {
		bob := dial(t, ws.list[1].Server)
		bob.send(`{"type":"join","room":"chat","since":` + sinceText(Position{Seq: at, Epoch: start.Epoch}) + `}`)
		m := bob.skipTo("joined")
		got := ""
		if m["gap"] == true {
			got = "gap"
		}
		for n := place(m).Seq + 1; n <= uint64(m["until"].(float64)); n++ {
			x := bob.next()
			if x["type"] == "member_joined" {
				n--
				continue
			}
			got += fmt.Sprint(" ", place(x).Seq)
		}
		if got = trimLeft(got); got != want {
			t.Errorf("since %d: %q, want %q (%v)", at, got, want, m)
		}
	}
}

func trimLeft(s string) string {
	if s != "" && s[0] == ' ' {
		return s[1:]
	}
	return s
}

// A session goes on at another worker.
func TestOrderedResume(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:100", nil)
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"chat"}`)
		c.skipTo("joined")
	}
	bob.conn.Close()
	for i := range 5 {
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"chat","data":%d}`, i))
		ann.skipTo("broadcast_sent")
	}
	again := dial(t, ws.list[1].Server)
	again.send(`{"type":"reconnect","token":"` + bob.token + `"}`)
	m := again.skipTo("reconnected")
	positions, _ := m["positions"].(map[string]any)
	if len(positions) != 1 {
		t.Fatal(m)
	}
	for n := 1; n <= 5; n++ {
		if x := again.skipTo("broadcast"); place(x).Seq != uint64(n) {
			t.Errorf("%v, want number %d", x, n)
		}
	}
}

// A new sequencer begins new epochs, which members are told, and their publishes go on.
func TestOrderedRestart(t *testing.T) {
	ws, o := startOrdered(t, 2, "chat=messages:100", nil)
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"chat"}`)
		c.skipTo("joined")
	}
	ann.send(`{"type":"broadcast","room":"chat","data":1}`)
	before := place(bob.skipTo("broadcast"))
	ann.skipTo("broadcast_sent")
	o.restart()
	for _, c := range []*client{ann, bob} {
		if m := c.skipTo("gap"); m["reset"] != true || place(m).Epoch == before.Epoch || place(m).Epoch == "" {
			t.Fatal(m)
		}
	}
	bob.send(`{"type":"broadcast","room":"chat","data":2}`)
	if m := ann.skipTo("broadcast"); place(m).Seq != 1 {
		t.Error(m)
	}
	bob.skipTo("broadcast_sent")
	cid := dial(t, ws.list[0].Server)
	cid.send(`{"type":"join","room":"chat","since":` + sinceText(before) + `}`)
	if m := cid.skipTo("joined"); m["gap"] != true || m["recovered"] != false {
		t.Error(m)
	}
}

// A part of the stream that is lost is read from the sequencer: no member misses anything.
func TestOrderedLoss(t *testing.T) {
	ws, o := startOrdered(t, 2, "chat=messages:100", nil)
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"chat"}`)
		c.skipTo("joined")
	}
	for i := range 30 {
		o.followers[1].loses.Store(i%7 == 3)
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"chat","data":%d}`, i))
		ann.skipTo("broadcast_sent")
	}
	for i := range 30 {
		if m := bob.skipTo("broadcast"); m["data"] != float64(i) || place(m).Seq != uint64(i+1) {
			t.Fatalf("%v, want message %d", m, i)
		}
	}
}

// While the sequencer is away, publishes and joins are unavailable after two seconds, and nothing is lost.
func TestOrderedAway(t *testing.T) {
	ws, o := startOrdered(t, 2, "chat=messages:100", nil)
	ann := dial(t, ws.list[0].Server)
	ann.send(`{"type":"join","room":"chat"}`)
	ann.skipTo("joined")
	o.silent.Store(true)
	ann.send(`{"type":"broadcast","room":"chat","data":1,"ref":"a"}`)
	ann.send(`{"type":"ping","ref":"b"}`)
	if m := ann.skipTo("error"); m["code"] != "unavailable" || m["ref"] != "a" {
		t.Error(m)
	}
	if m := ann.next(); m["type"] != "pong" || m["ref"] != "b" {
		t.Error(m)
	}
	bob := dial(t, ws.list[1].Server)
	bob.send(`{"type":"join","room":"chat","ref":"c"}`)
	if m := bob.skipTo("error"); m["code"] != "unavailable" || m["ref"] != "c" {
		t.Error(m)
	}
	o.silent.Store(false)
	bob.send(`{"type":"join","room":"chat"}`)
	bob.skipTo("joined")
	ann.send(`{"type":"broadcast","room":"chat","data":2}`)
	if m := bob.skipTo("broadcast"); m["data"] != float64(2) {
		t.Error(m)
	}
}

// What a client sends behind a publish waits for the number; further publishes do not.
func TestOrderedBehindPublish(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:100", nil)
	ann := dial(t, ws.list[0].Server)
	for _, room := range []string{"chat", "plain"} {
		ann.send(`{"type":"join","room":"` + room + `"}`)
		ann.skipTo("joined")
	}
	for i := range 20 {
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"chat","data":%d,"ref":%d}`, i, 3*i))
		ann.send(fmt.Sprintf(`{"type":"broadcast","room":"plain","data":%d,"ref":%d}`, i, 3*i+1))
		ann.send(fmt.Sprintf(`{"type":"ping","ref":%d}`, 3*i+2))
	}
	ann.send(`{"type":"broadcast","room":"chat","data":1}{`)
	for i := range 60 {
		if m := ann.next(); m["ref"] != float64(i) {
			t.Fatalf("%v, want ref %d", m, i)
		}
	}
	if m := ann.next(); m["code"] != "invalid_message" {
		t.Error(m)
	}
}

// The application publishes, with and without keys, and reads the history, at each worker.
func TestOrderedPublish(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:100", nil)
	bob := dial(t, ws.list[1].Server)
	bob.send(`{"type":"join","room":"chat"}`)
	bob.skipTo("joined")
	publish := func(s *Server, v any, o BroadcastOptions) (p Published, err error) {
		done := make(chan struct{})
		o.Done = func(got Published, e error) { p, err = got, e; close(done) }
		s.Publish("chat", v, o)
		<-done
		return p, err
	}
	first, err := publish(ws.list[0].Server, M{"type": "news", "n": 1}, BroadcastOptions{IdempotencyKey: "k"})
	if err != nil || first.Seq != 1 {
		t.Fatal(first, err)
	}
	if m := bob.skipTo("news"); place(m) != first.Position {
		t.Error(m)
	}
	again, err := publish(ws.list[1].Server, M{"type": "news", "n": 1}, BroadcastOptions{IdempotencyKey: "k"})
	if err != nil || !again.Duplicate || again.Position != first.Position {
		t.Error(again, err)
	}
	if _, err := publish(ws.list[0].Server, M{"seq": 1}, BroadcastOptions{}); err != ErrNotObject {
		t.Error(err)
	}
	if _, err := publish(ws.list[0].Server, M{"type": "news", "n": 2}, BroadcastOptions{Except: []string{bob.id}}); err != nil {
		t.Error(err)
	}
	if m := bob.next(); m["type"] != "skip" || m["why"] != "excluded" || place(m).Seq != 2 {
		t.Error(m)
	}
	for i, w := range ws.list {
		page, err := w.History(context.Background(), "chat", HistoryQuery{})
		if err != nil || page.Top != 2 || len(page.Messages) != 2 {
			t.Errorf("worker %d: %+v, %v", i, page, err)
		}
	}
	if err := ws.list[0].Post(Address{Rooms: []string{"chat"}}, M{"type": "news", "n": 3}); err != nil {
		t.Error(err)
	}
	if m := bob.next(); m["type"] != "news" || place(m).Seq != 3 {
		t.Error(m)
	}
	eventually(t, "the other worker's member is counted", func() bool { return ws.list[0].rooms.Index.Away("chat") == 1 })
	if n, err := ws.list[0].Everywhere().Post(context.Background(), Address{Rooms: []string{"chat"}}, M{"type": "news", "n": 4}); err != nil || n != 1 {
		t.Error(n, err)
	}
	if m := bob.next(); m["type"] != "news" || place(m).Seq != 4 {
		t.Error(m)
	}
}

// Receipts of all workers count.
func TestOrderedDelivered(t *testing.T) {
	ws, _ := startOrdered(t, 2, "chat=messages:100", func(cfg *Config) { cfg.ReceiptInterval = time.Second })
	ann, bob := dial(t, ws.list[0].Server), dial(t, ws.list[1].Server)
	for _, c := range []*client{ann, bob} {
		c.send(`{"type":"join","room":"chat"}`)
		c.skipTo("joined")
	}
	ann.send(`{"type":"broadcast","room":"chat","data":1}`)
	at := place(bob.skipTo("broadcast"))
	for _, c := range []*client{ann, bob} {
		go func() {
			for { // a client that reads answers PINGs
				if _, _, err := wsutil.ReadServerData(c.conn); err != nil {
					return
				}
			}
		}()
	}
	eventually(t, "both have the message for certain", func() bool {
		have, members, err := ws.list[0].Everywhere().Delivered(context.Background(), "chat", at)
		return err == nil && have == 2 && members == 2
	})
	if _, _, err := ws.list[0].Everywhere().Delivered(context.Background(), "chat", Position{Seq: 1, Epoch: "other"}); err != ErrNoHistory {
		t.Error(err)
	}
}
