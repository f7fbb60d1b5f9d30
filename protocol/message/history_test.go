package message

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// A message that takes a number is the same object with two members more, which stand at its end.
func FuzzAppendNumber(f *testing.F) {
	for _, text := range []string{`{}`, ` { } `, `{"a":1}`, "{\"a\":{\"seq\":1}}\n", `{"seq":1}`, `{"\u0073eq":1}`, `[]`, `{"a":1`, `{"a":"}"}`} {
		f.Add([]byte(text), uint64(7))
	}
	f.Fuzz(func(t *testing.T, text []byte, seq uint64) {
		if !utf8.Valid(text) || seq > SeqMax {
			return
		}
		body, ok := Numberable(text)
		var before map[string]json.RawMessage
		if !ok {
			return
		}
		if err := json.Unmarshal(text, &before); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		p := Position{seq, "E-_9"}
		got := AppendNumber(nil, body, p)
		if len(got) != NumberedBytes(body, p) {
			t.Fatalf("%s has %d bytes, not %d", got, len(got), NumberedBytes(body, p))
		}
		var after map[string]json.RawMessage
		if err := json.Unmarshal(got, &after); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if len(after) != len(before)+2 || !strings.HasSuffix(string(got), `,"epoch":"E-_9"}`) {
			t.Fatalf("%s of %s", got, text)
		}
		for name, value := range before {
			if string(after[name]) != string(value) {
				t.Fatalf("%s of %s: %s", got, text, name)
			}
		}
	})
}

// Places to start at are read as a reader of JSON reads them that takes integers only, and no member twice.
func FuzzSince(f *testing.F) {
	for _, text := range []string{`{"seq":1,"epoch":"a"}`, `{"last":3}`, `{"last":0}`, `{"seq":01,"epoch":"a"}`, `{"seq":1e3,"epoch":"a"}`,
		`{"seq":9007199254740991,"epoch":"a"}`, `{"seq":9007199254740992,"epoch":"a"}`, `{"seq":18446744073709551617,"epoch":"a"}`,
		`{"seq":1,"epoch":"a","epoch":"b"}`, `{"seq":-0,"epoch":"a"}`, `{"se\u0071":1,"epoch":"a"}`, `{"seq":1,"epoch":"` + strings.Repeat("x", 23) + `"}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) || !json.Valid(text) {
			return
		}
		s, ok := ParseSince(text)
		if !ok {
			return
		}
		var model struct {
			Seq   *uint64
			Epoch *string
			Last  *uint64
		}
		if err := json.Unmarshal(text, &model); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		switch {
		case s.Named && (model.Seq == nil || model.Epoch == nil || s.Position.Seq > SeqMax || !ValidEpoch(s.Position.Epoch)),
			!s.Named && s.Last == 0:
			t.Fatalf("%s is %+v", text, s)
		}
	})
}

// The options of a message are read only where they are well formed, each once.
func TestOptions(t *testing.T) {
	for text, want := range map[string]Options{
		`{"type":"broadcast"}`:                                          {},
		`{"type":"x","key":"k","idempotency_key":"i"}`:                  {Key: "k", IdempotencyKey: "i"},
		`{"type":"x","history":false,"other":[1]}`:                      {Ephemeral: true},
		`{"type":"x","history":true,"limit":100}`:                       {Limit: 100},
		`{"type":"x","k\u0065y":"\u006b"}`:                              {Key: "k"},
		`{"type":"x","key":"` + strings.Repeat("k", KeyBytesMax) + `"}`: {Key: strings.Repeat("k", KeyBytesMax)},
	} {
		var e Envelope
		if code := Route([]byte(text), &e); code != OK {
			t.Fatal(text, code)
		}
		if got, ok := e.Options(); !ok || got != want {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
		if got, ok := e.Clone().Options(); !ok || got != want {
			t.Errorf("the clone of %s: %+v, %v", text, got, ok)
		}
	}
	for _, bad := range []string{`"key":""`, `"key":1`, `"key":null`, `"key":"` + strings.Repeat("k", KeyBytesMax+1) + `"`, `"history":"false"`, `"history":0`,
		`"idempotency_key":[]`, `"limit":0`, `"limit":101`, `"limit":1.5`, `"limit":"1"`, `"before":{"last":1}`, `"key":"a","key":"a"`, `"key":"a","k\u0065y":"a"`} {
		var e Envelope
		if code := Route([]byte(`{"type":"x",`+bad+`}`), &e); code != OK {
			t.Fatal(bad, code)
		}
		if got, ok := e.Options(); ok {
			t.Errorf("%s: %+v", bad, got)
		}
	}
}

// Positions of a reconnect are read for the rooms that are wanted; others may be anything.
func TestParseLast(t *testing.T) {
	wanted := func(room []byte) bool { return string(room) == "a" || string(room) == "b" }
	got, ok := ParseLast([]byte(`{"a":{"seq":1,"epoch":"x","more":{}},"c":7,"c":8}`), wanted)
	if !ok || len(got) != 1 || got["a"] != (Position{1, "x"}) {
		t.Error(got, ok)
	}
	for _, bad := range []string{`[]`, `1`, `{"a":1}`, `{"a":{"last":1}}`, `{"a":{"seq":1,"epoch":"x"},"a":{"seq":1,"epoch":"x"}}`} {
		if got, ok := ParseLast([]byte(bad), wanted); ok {
			t.Errorf("%s: %v", bad, got)
		}
	}
}
