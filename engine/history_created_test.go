package engine

import (
	"fmt"
	"strings"
	"testing"
)

// A room that gets a history when it has members tells each of them its position, before any message with a number, once.
func TestHistoryBegins(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	newFollower := follow(t)
	ann, bob, cid := w.open(0), w.open(1), w.open(1)
	for _, c := range []*Conn{ann, bob, cid} {
		w.say(c, `{"type":"join","room":"h"}`)
		w.drain()
	}
	s.Broadcast("h", newsOf("h", -1, ""))
	if err := s.Rooms().Create("h", RoomOptions{History: &HistoryOptions{Messages: 5}}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		s.Broadcast("h", newsOf("h", i, ""))
	}
	// They join before their loops learn of the history.
	w.say(cid, `{"type":"join","room":"h","since":{"last":1}}`)
	dan := w.open(0)
	w.say(dan, `{"type":"join","room":"h"}`)
	w.say(ann, `{"type":"broadcast","room":"h","data":1}`)
	w.drain()
	for name, want := range map[*Conn]string{
		ann: "news position news news broadcast_sent",
		bob: "news position news news broadcast",
		cid: "joined news news broadcast",
		dan: "joined broadcast",
	} {
		texts := w.read(name)
		for len(texts) > 0 && !strings.HasPrefix(texts[0], `{"type":"news","room":"h","i":-1`) && !strings.Contains(texts[0], `"epoch"`) {
			texts = texts[1:]
		}
		got := strings.ReplaceAll(kinds(texts), " member_joined", "")
		if got != want {
			t.Errorf("%s, want %s: %v", got, want, texts)
		}
		if strings.Contains(want, "position") && !strings.HasPrefix(texts[1], `{"type":"position","room":"h","seq":0,"epoch":"`) {
			t.Error(texts[1])
		}
		if want[0] == 'n' {
			texts = texts[1:]
		}
		f := newFollower(want)
		f.take(texts)
		if f.at["h"].Seq != 3 {
			t.Errorf("%s is at %+v", want, f.at["h"])
		}
	}
}

// A session that ends before its client was told the beginning goes on at the beginning.
func TestHistoryBeginsForSession(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	c := w.open(0)
	w.say(c, `{"type":"join","room":"h"}`)
	w.drain()
	w.read(c)
	token := w.token(c)
	s.Rooms().Create("h", RoomOptions{History: &HistoryOptions{}})
	w.server.Gone(c)
	w.drain()
	s.Broadcast("h", newsOf("h", 1, ""))
	heir := w.open(1)
	w.read(heir)
	w.say(heir, `{"type":"reconnect","token":"`+token+`"}`)
	w.drain()
	texts := w.read(heir)
	if got := kinds(texts); got != "reconnected news reconnect_token" || !strings.Contains(texts[0], `"positions":{"h":{"seq":0,`) {
		t.Error(texts)
	}
}

// A room that is created with tighter bounds than its history had keeps to them at once.
func TestHistoryTightened(t *testing.T) {
	for _, o := range []HistoryOptions{{Messages: 3}, {Bytes: 200}} {
		w := historic(t, "h=messages:100")
		s := w.server.Server
		for i := range 10 {
			s.Broadcast("h", newsOf("h", i, ""))
		}
		if err := s.Rooms().Create("h", RoomOptions{History: &o}); err != nil {
			t.Fatal(err)
		}
		check := func(top uint64) {
			t.Helper()
			page, err := s.History(t.Context(), "h", HistoryQuery{Limit: 100})
			n := len(page.Messages)
			if err != nil || page.Top != top || n == 0 || n > 3 || page.Low != top-uint64(n)+1 || !strings.Contains(string(page.Messages[n-1].Message), fmt.Sprint(`"seq":`, top)) {
				t.Errorf("%+v: %v, %d messages from %d to %d", o, err, n, page.Low, page.Top)
			}
		}
		check(10)
		for i := range 20 {
			s.Broadcast("h", newsOf("h", i, ""))
			check(11 + uint64(i))
		}
	}
}
