package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// A client that has not authenticated is no connection yet, however connections are asked for.
func TestCountsThoseThatAreAdmitted(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	s.OnConnect(func(_ *Conn, r *Request) error { return nil })
	s.OnAuth(func(_ *Conn, token string) error {
		if token == "bad" {
			return errors.New("no")
		}
		return nil
	})
	count := func(want int) {
		t.Helper()
		total, err := s.Everywhere().ConnectionCount(t.Context())
		if n := len(slices.Collect(s.Connections())); s.ConnectionCount() != want || s.Stats().Connections != want || n != want || total != want || err != nil {
			t.Errorf("counted %d, %d in the figures, %d everywhere, listed %d, want %d (%v)", s.ConnectionCount(), s.Stats().Connections, total, n, want, err)
		}
	}
	auth := func(c *Conn, token string) {
		w.say(c, `{"type":"auth","token":"`+token+`"}`)
		w.server.Offloaded()
		w.drain()
	}
	a, b, gone := w.open(0), w.open(1), w.open(1)
	count(0)
	auth(a, "good")
	count(1)
	auth(b, "bad")
	w.server.Gone(gone)
	count(1)
	w.server.Gone(b)
	w.server.Gone(a)
	count(0)
}

type badUTF8 struct{}

func (badUTF8) MarshalJSON() ([]byte, error) { return []byte("\"\xff\""), nil }

// No text frame that leaves is invalid UTF-8, whatever the application gives.
func TestTextIsUTF8(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	s.RegisterFilter("all", func(*Conn, []byte) bool { return true })
	c := w.open(0)
	w.say(c, `{"type":"join","room":"r"}`)
	w.drain()
	w.read(c)
	c.SetAttribute("k", 1)
	all := func(*Conn) bool { return true }
	values := map[string]any{"bytes": []byte("\"\xff\""), "half": []byte("\xed\xa0\xbd")}
	for kind, v := range values {
		_, broadcast := s.Broadcast("r", v)
		_, where := s.BroadcastWhere(all, v)
		_, everywhere := s.Everywhere().SendTo(t.Context(), c.ID(), v)
		for i, err := range []error{c.Send(v), broadcast, s.BroadcastRooms([]string{"r"}, v), s.BroadcastAll(v), where,
			s.BroadcastMatching("k", 1, v), s.BroadcastFiltered("all", nil, v), everywhere} {
			if err == nil {
				t.Errorf("%s: call %d takes it", kind, i)
			}
		}
		if s.SendTo(c.ID(), v) {
			t.Errorf("%s: SendTo takes it", kind)
		}
		s.On(kind, answerWith(v, nil))
		s.On("offloaded_"+kind, answerWith(v, nil), Offload())
	}
	s.OnRaw(func(_ *Conn, p []byte, binary bool) []byte { return []byte("\xff") })
	w.drain()
	w.expect(c, "")
	ask := func(text string) {
		w.say(c, text)
		w.server.Offloaded()
		w.drain()
		w.expect(c, "error")
	}
	for kind := range values {
		ask(`{"type":"` + kind + `"}`)
		ask(`{"type":"offloaded_` + kind + `"}`)
	}
	ask("no JSON")
	if err := c.SendBinary([]byte("\xff")); err != nil {
		t.Error(err)
	}
	for _, v := range []any{"text: \u00e9\xff", json.RawMessage("\"\xff\""), badUTF8{}, M{"\xff": "\xff"}} { // what is invalid is replaced
		c.Send(v)
		w.drain()
		if got := w.read(c); len(got) != 1 || !utf8.ValidString(got[0]) || !json.Valid([]byte(got[0])) {
			t.Errorf("%q", got)
		}
	}
	w.server.Serve(c, masked(ws.OpBinary, "x")) // a binary reply may be anything
	w.drain()
}
