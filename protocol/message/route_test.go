package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
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
		{`{"type":"x","room":"\ud83d"}`, InvalidMessage, "x||||"},
		{`{"type":"x","data":"\ud83d"}`, InvalidMessage, "x||||"},
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

// Each kind of value is held against the grammar of JSON.
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
	if !json.Valid(p) || depthOf(p) > depthMax || lonely(p) {
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
		if name == "type" && raw[0] != '"' || name == "ref" && !goodRef(raw) {
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

// lonely reports whether a text holds half a surrogate pair.
func lonely(text []byte) bool {
	for _, m := range escapes.FindAll(text, -1) {
		if len(m) == 6 && (m[2] == 'd' || m[2] == 'D') && m[3] >= '8' {
			return true
		}
	}
	return false
}

var escapes = regexp.MustCompile(`(?s)\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)`)

func goodRef(raw []byte) bool {
	if raw[0] == '"' {
		var s string
		json.Unmarshal(raw, &s)
		return len(s) <= refMax
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

// BenchmarkRoute compares with sonic and encoding/json, which decode type and room alone.
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

// Half a surrogate pair is refused anywhere in a message: some JSON readers refuse the whole message for it.
func TestHalfSurrogatePairs(t *testing.T) {
	for _, half := range []string{`\ud83d`, `\uD83D`, `\ude00`, `\uDFFF`, `\udbff`, `\ud83dx`, `\ud83d\u0041`, `\ud83d\ud83d`, `\ud83d\n`,
		`\ude00\ud83d`, `\ud83d\ude0z`, `\ud83d\udbff`, `\ud83d\ue000`, `\ud83d\\ude00`, `\ud83d\ude00\ud83d`, `\ud83d\ude00\ude00`, `\ud83d/ude00`} {
		for _, in := range []string{`{"type":"x","data":"%s"}`, `{"type":"x","data":[{"a":"b%sc"}]}`, `{"type":"x","data":{"%s":1}}`, `{"type":"x","%s":1}`,
			`{"type":"%s"}`, `{"type":"x","room":"%s"}`, `{"type":"x","token":"%s"}`, `{"type":"x","other":["%s"]}`, `{"type":"x","ref":"%s"}`} {
			var e Envelope
			if text := fmt.Sprintf(in, half); Route([]byte(text), &e) != InvalidMessage {
				t.Errorf("%s passes", text)
			}
		}
	}
	for _, whole := range []string{`\ud83d\ude00`, `\uD83D\uDE00`, `\ud800\udc00`, `\udbff\udfff`, `\ud7ff`, `\ue000`, `\uD7fF\uE000`, `\\ud83d`, `\udbff\uDFFFx`, `\uda00\udd00`} {
		var e Envelope
		text := fmt.Sprintf(`{"type":"x","room":"%s","data":"%[1]s"}`, whole)
		var want string
		if json.Unmarshal([]byte(`"`+whole+`"`), &want); Route([]byte(text), &e) != OK || string(e.Room) != want {
			t.Errorf("%s: room %q, want %q", text, e.Room, want)
		}
	}
}

// A refusal carries the message's ref, before or behind the fault, if the ref itself is valid.
func TestRefBehindFaults(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":5,"ref":"a"}`:                       `"a"`,
		`{"ref":"a","type":5}`:                       `"a"`,
		`{"type":null , "ref" : 7 }`:                 `7`,
		`{"ref":7}`:                                  `7`,
		`{"data":1,"ref":7}`:                         `7`,
		`{"type":"x","type":"y","ref":7}`:            `7`,
		`{"type":"x","data":1,"data":2,"ref":-7}`:    `-7`,
		`{"type":"x","data":"\ud83d","ref":"a"}`:     `"a"`,
		`{"type":"x","\ud83d":1,"ref":"a"}`:          `"a"`,
		`{"type":"x","data":01,"ref":"a"}`:           `"a"`,
		`{"type":"x","data":nul,"ref":"a"}`:          `"a"`,
		`{"type":"x","data":,"ref":"a"}`:             `"a"`,
		`{"type":"x","data":"\x","ref":"a"}`:         `"a"`,
		"{\"type\":\"a\tb\",\"ref\":\"a\"}":          `"a"`,
		`{"type":"x",,"ref":"a"}`:                    `"a"`,
		`{"type":5,"\u0072ef":"a"}`:                  `"a"`,
		`{"type":5,"data":{"ref":"b"},"ref":"a"}`:    `"a"`,
		`{"type":5,"data":["ref","b"],"ref":"a"}`:    `"a"`,
		`{"type":5,"data":"\"ref\":1","ref":"a"}`:    `"a"`,
		`{"type":5,"data":"ref","to":"ref","ref":1}`: `1`,
		`{"type":"x","ref":"a","ref":"b"}`:           `"a"`,
		`{"type":"x","ref":"a"`:                      `"a"`,
		`{"type":"x","data":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `,"ref":"a"}`: `"a"`,
		// no ref, or another message's
		`{"type":5,"ref":1.5}`:                               "",
		`{"type":5,"ref":01}`:                                "",
		`{"type":5,"ref":null}`:                              "",
		`{"type":5,"ref":{}}`:                                "",
		`{"type":5,"ref":"\ud83d"}`:                          "",
		`{"type":5,"ref":"a`:                                 "",
		`{"type":5,"ref":7`:                                  "",
		`{"type":5,"ref"`:                                    "",
		`{"type":5,"ref":`:                                   "",
		`{"type":5,"data":{"ref":7}}`:                        "",
		`{"type":5,"data":[{"ref":7}]`:                       "",
		`{"type":5}{"ref":7}`:                                "",
		`{"type":5,"data":"a,"ref":7}`:                       "",
		`{"type":5,"ref":"` + strings.Repeat("a", 65) + `"}`: "",
		`{"type":"x","ref":1.5,"ref":7}`:                     "",
	} {
		var e Envelope
		if code := Route([]byte(in), &e); code != InvalidMessage || string(e.Ref) != want {
			t.Errorf("%.80s: %v, ref %s, want %s", in, code, e.Ref, want)
		}
	}
}
