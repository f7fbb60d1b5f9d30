package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bytedance/sonic"
	"github.com/bytedance/sonic/ast"
)

func TestRoute(t *testing.T) {
	deep := func(n int) string {
		return `{"type":"x","data":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for _, c := range []struct {
		in   string
		code Code
		want string // type|room|ref|data|token
	}{
		{`{"type":"join","room":"room1"}`, OK, "join|room1|||"},
		{`{"type":"broadcast","room":"room1","data":"hello"}`, OK, `broadcast|room1||"hello"|`},
		{`{"type":"reconnect","token":"xxx"}`, OK, "reconnect||||xxx"},
		{" \t\r\n{ \"type\" : \"ping\" , \"ref\" : -12 } \n", OK, "ping||-12||"},
		{`{"type":"x","ref":"r"}`, OK, `x||"r"||`},
		{`{"type":"x","data":0}`, OK, "x|||0|"},
		{`{"type":"x","data":false}`, OK, "x|||false|"},
		{`{"type":"x","data":null}`, OK, "x|||null|"},
		{`{"type":"x","data":""}`, OK, `x|||""|`},
		{`{"type":"x","data":{"type":"y","room":[1,{"data":"}"}]}}`, OK, `x|||{"type":"y","room":[1,{"data":"}"}]}|`},
		{`{"\u0074ype":"\u006aoin","room":"\u0061\"\\\/\b"}`, OK, "join|a\"\\/\b|||"},
		{`{"type":"x","room":"\ud83d\ude00"}`, OK, "x|😀|||"},
		{`{"type":"x","room":"\ud83d"}`, OK, "x||||"},
		{`{"type":"x","data":"\ud83d"}`, OK, `x|||"\ud83d"|`},
		{deep(63), OK, "x|||" + strings.Repeat("[", 63) + strings.Repeat("]", 63) + "|"},
		{deep(64), InvalidMessage, "x||||"},
		{``, InvalidJSON, "||||"},
		{`hello`, InvalidJSON, "||||"},
		{`[1]`, InvalidJSON, "||||"},
		{`42`, InvalidJSON, "||||"},
		{`"type"`, InvalidJSON, "||||"},
		{`{}`, InvalidMessage, "||||"},
		{`{`, InvalidMessage, "||||"},
		{`{"type":"x"`, InvalidMessage, "x||||"},
		{`{"type":"x"}}`, InvalidMessage, "x||||"},
		{`{"type":"x",}`, InvalidMessage, "x||||"},
		{`{"type":"x" "room":"r"}`, InvalidMessage, "x||||"},
		{`{'type':'x'}`, InvalidMessage, "||||"},
		{`{"type":5}`, InvalidMessage, "||||"},
		{`{"room":"r"}`, InvalidMessage, "|r|||"},
		{`{"type":"x","type":"y"}`, InvalidMessage, "x||||"},
		{`{"type":"x","\u0074ype":"y"}`, InvalidMessage, "x||||"},
		{`{"type":"x","ref":7,"data":1,"data":2}`, InvalidMessage, "x||7|1|"},
		{`{"type":"x","ref":1.5}`, InvalidMessage, "x||||"},
		{`{"type":"x","ref":{}}`, InvalidMessage, "x||||"},
		{`{"type":"x","ref":null}`, InvalidMessage, "x||||"},
		{`{"type":"x","ref":"` + strings.Repeat("a", 65) + `"}`, InvalidMessage, "x||||"},
		{`{"type":"x","ref":"` + strings.Repeat("a", 64) + `"}`, OK, `x||"` + strings.Repeat("a", 64) + `"||`},
		{"{\"type\":\"a\x01\"}", InvalidMessage, "||||"},
		{`{"type":"x","data":01}`, InvalidMessage, "x|||0|"},
	} {
		var e Envelope
		code := Route([]byte(c.in), &e)
		got := fmt.Sprintf("%s|%s|%s|%s|%s", e.Type, e.Room, e.Ref, e.Data, e.Token)
		if code != c.code || got != c.want {
			t.Errorf("%.80s: got %s %s, want %s %s", c.in, code, got, c.code, c.want)
		}
	}
	var e Envelope
	if Route([]byte(`{"type":"join","room":5}`), &e); !e.RoomWrong || e.Room != nil {
		t.Error("a room that is no string goes unnoticed")
	}
}

// The grammar of JSON, value by value.
func TestGrammar(t *testing.T) {
	for _, v := range []string{`0`, `-0`, `1e5`, `1E+5`, `1.5e-3`, `-1.0`, `[]`, `[ ]`, `{}`, `{ }`, `[1,2]`, `[[],{}]`, `"\u12aF"`,
		`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `0x1`, `NaN`, `Infinity`, `tru`, `truee`, `nul`, `[1,]`, `[,1]`, `[1`, `{"a"}`, `{"a":}`,
		`{"a":1,}`, `{a:1}`, `{1:1}`, `"\x"`, `"\u12g4"`, `"\u12"`, `"a`, "\"\n\"", "\"\t\"", `[1}`, `{"a":1]`, `1 2`, `"a" "b"`, `/**/1`, "\ufeff1", `[1] ]`, "\"\x7f\"", `--1`, `[-]`, `{"":0}`, `"` + strings.Repeat("long ", 20) + `\"`,
	} {
		var e Envelope
		got := Route([]byte(`{"type":"x","data":`+v+`}`), &e) == OK
		if want := json.Valid([]byte(v)); got != want {
			t.Errorf("%s: got %v, want %v", v, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]Code{"": RoomRequired, "a": OK, strings.Repeat("a", 255): OK, strings.Repeat("a", 256): InvalidRoom,
		"a\nb": InvalidRoom, "a\x7f": InvalidRoom, "a\u0085": InvalidRoom, "房间": OK, "a b": OK, "\xff": InvalidRoom, "\x00": InvalidRoom, "\u00a0": OK} {
		if got := ValidRoom([]byte(name)); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
	for text, want := range map[string]bool{"pong": true, " pong\n": true, "ping": false, "pongo": false, "": false} {
		if IsBarePong([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
	}
}

// FuzzRoute holds the hand scan against encoding/json and a plain walk over its tokens.
func FuzzRoute(f *testing.F) {
	for _, s := range []string{`{"type":"broadcast","room":"r","data":{"a":[1,2.5e3,"\ud83d\ude00",null]},"ref":"x"}`, `{"type":"x","type":"y"}`,
		`{"a":{"b":[{"c":[]}]},"type":"\u0041"}`, `[{}]`, ` {"type" : "t" , "data" : false } `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if !utf8.Valid(p) {
			return
		}
		var e Envelope
		code := Route(p, &e)
		want, values := naive(p)
		if code != want {
			t.Fatalf("%q: got %v, want %v", p, code, want)
		}
		if code != OK {
			return
		}
		for key, got := range map[string][]byte{"data": e.Data, "ref": e.Ref, "last": e.Last, "since": e.Since} {
			if !bytes.Equal(got, values[key]) {
				t.Fatalf("%q: %s is %q, want %q", p, key, got, values[key])
			}
		}
		var typ string
		if err := json.Unmarshal(values["type"], &typ); err != nil || typ != string(e.Type) {
			t.Fatalf("%q: type %q, want %q", p, e.Type, typ)
		}
	})
}

// naive is Route by encoding/json.
func naive(p []byte) (Code, map[string][]byte) {
	if trimmed := bytes.TrimLeft(p, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return InvalidJSON, nil
	}
	if !json.Valid(p) || depthOf(p) > depthMax {
		return InvalidMessage, nil
	}
	d := json.NewDecoder(bytes.NewReader(p))
	d.Token()
	values := map[string][]byte{}
	for d.More() {
		key, _ := d.Token()
		var raw json.RawMessage
		if d.Decode(&raw) != nil {
			return InvalidMessage, nil
		}
		name := key.(string)
		if keyOf([]byte(name)) == 0 {
			continue
		}
		if values[name] != nil {
			return InvalidMessage, nil
		}
		values[name] = raw
		if name == "type" && (raw[0] != '"' || lonely(raw)) || name == "ref" && !goodRef(raw) {
			return InvalidMessage, nil
		}
	}
	if values["type"] == nil {
		return InvalidMessage, nil
	}
	return OK, values
}

func depthOf(p []byte) (most int) {
	d := json.NewDecoder(bytes.NewReader(p))
	depth := 0
	for {
		token, err := d.Token()
		if err != nil {
			return most
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			most = max(most, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}

// lonely reports whether a string holds half a surrogate pair, which encoding/json replaces.
func lonely(raw []byte) bool {
	var s string
	json.Unmarshal(raw, &s)
	return strings.Count(s, "\ufffd") > strings.Count(string(raw), "\ufffd")+strings.Count(strings.ToLower(string(raw)), `\ufffd`)
}

func goodRef(raw []byte) bool {
	if raw[0] == '"' {
		var s string
		json.Unmarshal(raw, &s)
		return len(s) <= refMax && !lonely(raw)
	}
	return len(raw) <= 20 && raw[0] != '{' && raw[0] != '[' && raw[0] != 't' && raw[0] != 'f' && raw[0] != 'n' && !bytes.ContainsAny(raw, ".eE")
}

var envelopes = func() map[string][]byte {
	out := map[string][]byte{}
	for name, n := range map[string]int{"126B": 75, "1KB": 960, "16KB": 16300} {
		out[name] = fmt.Appendf(nil, `{"type":"broadcast","room":"room-17","data":%q}`, strings.Repeat("abcdefghij klmno", n/16+1)[:n])
	}
	return out
}()

// BenchmarkRoute beside what sonic and encoding/json take for type and room alone.
func BenchmarkRoute(b *testing.B) {
	for _, name := range []string{"126B", "1KB", "16KB"} {
		p := envelopes[name]
		run := func(label string, f func()) {
			b.Run(name+"/"+label, func(b *testing.B) {
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				for b.Loop() {
					f()
				}
			})
		}
		var e Envelope
		run("hand", func() { Route(p, &e) })
		run("sonic-searcher", func() {
			s := ast.NewSearcher(string(p))
			s.GetByPath("type")
			s.GetByPath("room")
		})
		type envelope struct{ Type, Room string }
		run("sonic-unmarshal", func() {
			var v envelope
			sonic.ConfigFastest.Unmarshal(p, &v)
		})
		run("encoding-json", func() {
			var v envelope
			json.Unmarshal(p, &v)
		})
	}
}
