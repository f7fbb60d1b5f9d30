package engine

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// Bytes that the application gives are read before the call returns, and are not changed; what is done to them
// afterwards changes nothing that is sent.
func TestLentBytes(t *testing.T) {
	w := newScript(t, nil)
	s := w.server.Server
	s.RegisterFilter("all", func(*Conn, []byte) bool { return true })
	c := w.open(0)
	w.say(c, `{"type":"join","room":"r"}`)
	c.SetAttribute("k", 1)
	w.drain()
	w.read(c)
	const text = `{"type":"given","data":[1,2,3]}`
	all := func(*Conn) bool { return true }
	for name, give := range map[string]func(v any){
		"Send":              func(v any) { c.Send(v) },
		"SendTo":            func(v any) { s.SendTo(c.ID(), v) },
		"Broadcast":         func(v any) { s.Broadcast("r", v) },
		"BroadcastRooms":    func(v any) { s.BroadcastRooms([]string{"r"}, v) },
		"BroadcastAll":      func(v any) { s.BroadcastAll(v) },
		"BroadcastWhere":    func(v any) { s.BroadcastWhere(all, v) },
		"BroadcastMatching": func(v any) { s.BroadcastMatching("k", 1, v) },
		"BroadcastFiltered": func(v any) { s.BroadcastFiltered("all", nil, v) },
		"Everywhere.SendTo": func(v any) { s.Everywhere().SendTo(t.Context(), c.ID(), v) },
	} {
		for kind, as := range map[string]func(b []byte) any{
			"[]byte":          func(b []byte) any { return b },
			"json.RawMessage": func(b []byte) any { return json.RawMessage(b) },
			"M":               func(b []byte) any { return M{"type": "given", "data": json.RawMessage(b[23:30])} },
		} {
			b := bytes.Repeat([]byte("."), 100)[:len(text)] // with room behind it, where nothing may be written
			copy(b, text)
			give(as(b))
			if string(b) != text || b[:100][len(text)] != '.' {
				t.Errorf("%s(%s): the bytes are now %q", name, kind, b[:100])
			}
			copy(b, bytes.Repeat([]byte("X"), len(b)))
			w.drain()
			got := w.read(c)
			if want := map[bool]string{true: `{"data":[1,2,3],"type":"given"}`, false: text}[kind == "M"]; len(got) != 1 || got[0] != want {
				t.Errorf("%s(%s): got %q", name, kind, got)
			}
		}
	}
	value := json.RawMessage(`"kept"`)
	c.SetAttribute("kept", value)
	c.SetUserData(value)
	s.Rooms().Create("made", RoomOptions{Metadata: value})
	copy(value, "XXXXXX")
	kept, _ := Attribute[string](c, "kept")
	user, _ := UserData[string](c)
	if made, _ := s.Rooms().Stats("made"); kept != "kept" || user != "kept" || string(made.Metadata) != `"kept"` {
		t.Error(kept, user, string(made.Metadata))
	}
	_ = append(c.Attribute("kept"), "X"...)
	_ = append(c.Attributes()["kept"], "Y"...)
	if attr := c.Attribute("kept"); strings.ContainsAny(string(attr[:cap(attr)]), "XY") {
		t.Error("what is appended to an attribute ends in the memory of all")
	}
}

// A reply that is bytes gets the client's ref in a copy: other calls may use the bytes, too, or they lie in the client's message.
func TestLentReplies(t *testing.T) {
	const shared = `{"type":"ok"}`
	ok := bytes.Repeat([]byte("."), 100)[:len(shared)]
	copy(ok, shared)
	reused := []byte(shared)
	w := newScript(t, nil)
	s := w.server.Server
	s.On("shared", func(*Conn, *Message, *Server) (any, error) { return ok, nil })
	s.On("raw", func(*Conn, *Message, *Server) (any, error) { return json.RawMessage(ok), nil })
	s.On("inner", func(_ *Conn, m *Message, _ *Server) (any, error) {
		return m.Payload()[bytes.IndexByte(m.Payload(), '['):][1:14], nil
	})
	s.On("reused", func(*Conn, *Message, *Server) (any, error) { return reused, nil }, Offload())
	c := w.open(0)
	w.read(c)
	const inner = `{"type":"inner","ref":7,"data":[{"type":"ok"}]}`
	for _, x := range []struct{ say, want string }{
		{`{"type":"shared","ref":1}`, `{"type":"ok","ref":1}`},
		{`{"type":"shared","ref":"two"}`, `{"type":"ok","ref":"two"}`},
		{`{"type":"shared"}`, shared},
		{`{"type":"raw","ref":3}`, `{"type":"ok","ref":3}`},
		{inner, `{"type":"ok","ref":7}`},
	} {
		if w.say(c, x.say); w.read(c)[0] != x.want {
			t.Errorf("%s is not answered with %s", x.say, x.want)
		}
		if string(ok[:100]) != shared+strings.Repeat(".", 100-len(shared)) {
			t.Fatalf("%s: the handler's bytes are now %q", x.say, ok[:100])
		}
	}
	w.server.Serve(c, append(masked(ws.OpText, inner), masked(ws.OpText, `{"type":"ping","ref":8}`)...))
	if got := w.read(c); len(got) != 2 || got[0] != `{"type":"ok","ref":7}` || !strings.Contains(got[1], `"ref":8`) {
		t.Errorf("got %q", got)
	}
	w.say(c, `{"type":"reused","ref":9}`)
	w.server.Offloaded()
	copy(reused, "XXXXXXXXXXXXX") // the handler has returned: they are the application's again
	w.drain()
	if got := w.read(c); got[0] != `{"type":"ok","ref":9}` {
		t.Errorf("got %q", got)
	}
}

// The lists of a configuration are copied, in both directions.
func TestLentConfiguration(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Origins, cfg.Subprotocols, cfg.TrustedProxies = []string{"https://a.example"}, []string{"chat"}, []string{"10.0.0.1"}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		cfg.Origins[0], cfg.Subprotocols[0], cfg.TrustedProxies[0] = "X", "X", "X"
		cfg = s.Config()
	}
	if s.cfg.Subprotocols[0] != "chat" || cfg.Origins[0] != "https://a.example" || cfg.TrustedProxies[0] != "10.0.0.1" {
		t.Error(s.cfg.Subprotocols, cfg)
	}
}
