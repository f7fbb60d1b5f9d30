package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// Pages of a history, asked for by a client.
func TestHistoryPages(t *testing.T) {
	w := historic(t, "h=messages:10")
	s := w.server.Server
	c := w.open(0)
	ask := func(text string) string {
		t.Helper()
		w.say(c, text)
		w.drain()
		got := w.read(c)
		if len(got) != 1 {
			t.Fatal(got)
		}
		return got[0]
	}
	w.read(c)
	if got := ask(`{"type":"history","room":"h"}`); !strings.Contains(got, "not_in_room") {
		t.Error(got)
	}
	var m placed
	json.Unmarshal([]byte(ask(`{"type":"join","room":"h"}`)), &m)
	for i := range 13 {
		s.Broadcast("h", M{"n": i + 1})
	}
	w.drain()
	w.read(c)
	for question, want := range map[string]string{
		``:                           "low 4 top 13: 4 5 6 7 8 9 10 11 12 13",
		`"limit":3`:                  "low 4 top 13: 11 12 13 more",
		`"since":POS(3),"limit":2`:   "low 4 top 13: 4 5 more",
		`"since":POS(13)`:            "low 4 top 13:",
		`"since":POS(1),"limit":1`:   `low 4 top 13: 4 more gap {"from":2,"to":3}`,
		`"since":POS(99)`:            "low 4 top 13: gap ",
		`"before":POS(7),"limit":2`:  "low 4 top 13: 5 6 more",
		`"before":POS(6)`:            "low 4 top 13: 4 5",
		`"before":POS(2)`:            "low 4 top 13:",
		`"before":POS(99),"limit":1`: "low 4 top 13: 13 more",
	} {
		for strings.Contains(question, "POS(") {
			a, b, _ := strings.Cut(question, "POS(")
			n, rest, _ := strings.Cut(b, ")")
			question = a + `{"seq":` + n + `,"epoch":"` + m.Epoch + `"}` + rest
		}
		text := `{"type":"history","room":"h",` + question + `}`
		if question == "" {
			text = `{"type":"history","room":"h"}`
		}
		var page struct {
			Low, Top uint64
			Messages []struct{ Seq uint64 }
			More     bool
			Gap      bool
			Missing  json.RawMessage
		}
		answer := ask(text)
		if err := json.Unmarshal([]byte(answer), &page); err != nil {
			t.Fatal(err, answer)
		}
		got := fmt.Sprintf("low %d top %d:", page.Low, page.Top)
		for _, x := range page.Messages {
			got += fmt.Sprint(" ", x.Seq)
		}
		if page.More {
			got += " more"
		}
		if page.Gap {
			got += " gap " + string(page.Missing)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", question, got, want)
		}
	}
	for _, bad := range []string{`"limit":0`, `"limit":101`, `"limit":1,"limit":1`, `"since":1`, `"before":null`, `"since":{"last":1}`, `"since":{"seq":1,"epoch":"a"},"before":{"seq":1,"epoch":"a"}`} {
		if got := ask(`{"type":"history","room":"h",` + bad + `}`); !strings.Contains(got, "invalid_message") {
			t.Errorf("%s: %s", bad, got)
		}
	}
	ask(`{"type":"join","room":"plain"}`)
	if got := ask(`{"type":"history","room":"plain"}`); !strings.Contains(got, "no_history") {
		t.Error(got)
	}
}

// A server without history knows nothing of it.
func TestNoHistoryAnywhere(t *testing.T) {
	w := newScript(t, nil)
	c := w.open(0)
	w.read(c)
	for text, want := range map[string]string{
		`{"type":"history","room":"h"}`:                                `"code":"unknown_type"`,
		`{"type":"join","room":"h","since":5}`:                         `{"type":"joined","room":"h","members":1,"gap":true}`,
		`{"type":"broadcast","room":"h","data":1,"idempotency_key":7}`: `broadcast_sent`,
	} {
		if strings.Contains(text, "broadcast") {
			w.say(c, `{"type":"join","room":"h"}`)
			w.read(c)
		}
		w.say(c, text)
		w.drain()
		if got := w.read(c); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// A room with history outlives its last use for a while, and frees all that it had.
func TestHistoryEnds(t *testing.T) {
	w := newScript(t, func(c *Config) { c.History, c.ReconnectionTTL = []string{"h=age:2s"}, 5*time.Second })
	s := w.server.Server
	s.Broadcast("h", M{"type": "news"})
	index := s.rooms.Index
	if n := index.HistoryCounts(); n.Rooms != 1 || n.Messages != 1 || n.Bytes == 0 {
		t.Fatalf("%+v", n)
	}
	w.pass(3 * time.Second)
	if n := index.HistoryCounts(); n.Rooms != 1 || n.Messages != 0 || n.Bytes != 0 {
		t.Errorf("after the age of its message: %+v", n)
	}
	if page, err := s.History(t.Context(), "h", HistoryQuery{}); err != nil || page.Top != 1 || page.Low != 2 {
		t.Errorf("%v %+v", err, page)
	}
	w.pass(5 * time.Second)
	if n := index.HistoryCounts(); n.Rooms != 0 || index.Len() != 0 {
		t.Errorf("after all: %+v, %d rooms", n, index.Len())
	}
}

// A room whose history gets smaller bounds forgets its oldest messages, and goes on; one with larger bounds keeps more.
func TestHistoryBoundsChange(t *testing.T) {
	w := historic(t, "h=messages:100")
	s := w.server.Server
	kept := func() string {
		t.Helper()
		page, err := s.History(t.Context(), "h", HistoryQuery{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		stats, _ := s.Rooms().Stats("h")
		if h := stats.History; h == nil || h.Seq != page.Top || h.Epoch != page.Epoch || h.Messages != len(page.Messages) {
			t.Errorf("%+v, %+v", h, page)
		}
		return fmt.Sprintf("%d to %d", page.Low, page.Top)
	}
	publish := func(n int) {
		for range n {
			s.Broadcast("h", M{"type": "news"})
		}
	}
	publish(60)
	if err := s.Rooms().Create("h", RoomOptions{History: &HistoryOptions{Messages: 7}}); err != nil {
		t.Fatal(err)
	}
	if got := kept(); got != "54 to 60" {
		t.Error(got)
	}
	publish(40)
	if got := kept(); got != "94 to 100" {
		t.Error(got)
	}
	for _, row := range []struct {
		o    HistoryOptions
		want string
	}{{HistoryOptions{Messages: 9}, "102 to 110"}, {HistoryOptions{Messages: 50}, "102 to 120"}, {HistoryOptions{Bytes: 150}, "128 to 130"}, {HistoryOptions{Messages: -1}, "138 to 140"}} {
		if err := s.Rooms().Update("h", RoomUpdate{History: &row.o}); err != nil {
			t.Fatal(err)
		}
		publish(10)
		if got := kept(); got != row.want {
			t.Errorf("%+v: %s, want %s", row.o, got, row.want)
		}
	}
}
