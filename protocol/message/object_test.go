package message

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// members lists what EachMember gives.
func members(text string) (list []string, code Code) {
	code = EachMember([]byte(text), func(name, value []byte) bool {
		list = append(list, string(name)+"="+string(value))
		return true
	})
	return list, code
}

// An object's members come in order, with their values as they were sent, and a broken text is refused.
func TestEachMember(t *testing.T) {
	deep := strings.Repeat("[", 63) + strings.Repeat("]", 63)
	for _, row := range []struct {
		text string
		code Code
		want []string
	}{
		{`{}`, OK, nil},
		{" {\n} ", OK, nil},
		{`{"a":1,"b":{"c":[2, 3]} , "\u0061":"x"}`, OK, []string{"a=1", `b={"c":[2, 3]}`, `a="x"`}},
		{`{"\u0061":12345678901234567890123}`, OK, []string{"a=12345678901234567890123"}},
		{`{"a":` + deep + `}`, OK, []string{"a=" + deep}},
		{`{"a":[` + deep + `]}`, InvalidMessage, nil},
		{`[1]`, InvalidJSON, nil},
		{``, InvalidJSON, nil},
		{`null`, InvalidJSON, nil},
		{`{`, InvalidMessage, nil},
		{`{"a"}`, InvalidMessage, nil},
		{`{"a":}`, InvalidMessage, nil},
		{`{"a":01}`, InvalidMessage, []string{"a=0"}},
		{`{"a":1,}`, InvalidMessage, []string{"a=1"}},
		{`{"a":1}{}`, InvalidMessage, []string{"a=1"}},
		{`{"a":1`, InvalidMessage, []string{"a=1"}},
		{`{"a":"\ud800"}`, InvalidMessage, nil},
		{`{a:1}`, InvalidMessage, nil},
	} {
		if list, code := members(row.text); code != row.code || !slices.Equal(list, row.want) {
			t.Errorf("%s: %v %q, want %v %q", row.text, code, list, row.code, row.want)
		}
	}
	n := 0
	if code := EachMember([]byte(`{"a":1,"b":2}`), func(_, _ []byte) bool { n++; return false }); code != InvalidMessage || n != 1 {
		t.Errorf("told to stop: %v after %d members", code, n)
	}
}

// An array's elements come in order, and a broken text is refused.
func TestEachElement(t *testing.T) {
	for text, want := range map[string]Code{`[]`: OK, `[1, "a",{}]`: OK, `{}`: InvalidJSON, `[1,]`: InvalidMessage, `[1`: InvalidMessage,
		`[1] 2`: InvalidMessage, `[1 2]`: InvalidMessage, `[`: InvalidMessage, `[}`: InvalidMessage} {
		var list []string
		code := EachElement([]byte(text), func(value []byte) bool { list = append(list, string(value)); return true })
		if code != want || code == OK && len(text) > 2 && strings.Join(list, "|") != `1|"a"|{}` {
			t.Errorf("%s: %v %q", text, code, list)
		}
	}
}

// A text that the server sends has one type, and no key of the envelope twice.
func TestSendable(t *testing.T) {
	for text, want := range map[string]Code{
		`{"type":"x","ref":{"any":1},"a":1,"a":2}`: OK, `{"type":""}`: OK,
		`{"type":1}`: InvalidMessage, `{}`: InvalidMessage, `{"type":"x","type":"x"}`: InvalidMessage, `{"type":"x","room":"a","\u0072oom":"b"}`: InvalidMessage,
		`"x"`: InvalidJSON, `{"type":"x"} x`: InvalidMessage,
	} {
		if code := Sendable([]byte(text)); code != want {
			t.Errorf("%s: %v, want %v", text, code, want)
		}
	}
}

// A string's content is unescaped; other values have none.
func TestText(t *testing.T) {
	if text, ok := Text([]byte(`"\u00e9\n\ud83d\ude00"`)); !ok || text != "é\n😀" {
		t.Errorf("%q %v", text, ok)
	}
	for _, value := range []string{`1`, `null`, `{}`, ``} {
		if text, ok := Text([]byte(value)); ok {
			t.Errorf("%s: %q", value, text)
		}
	}
}

// EachMember agrees with encoding/json about what is an object, and about its members.
func FuzzEachMember(f *testing.F) {
	for _, text := range []string{`{"a":1,"b":[{}]}`, `{"\u0061":"\n"}`, `{"a":{"a":{"a":null}}}`, `{"a":1}x`, `{`, `[{}]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !utf8.Valid(text) {
			return
		}
		got := map[string]string{}
		code := EachMember(text, func(name, value []byte) bool { got[string(name)] = string(value); return true })
		var want map[string]json.RawMessage
		err := json.Unmarshal(text, &want)
		object := err == nil && bytes.TrimLeft(text, " \t\r\n")[0] == '{'
		if code == OK && !object {
			t.Fatalf("%q: taken, and encoding/json says %v", text, err)
		}
		if code != OK && object && depthOf(text) <= depthMax && !lonely(text) {
			t.Fatalf("%q: %v, and encoding/json takes it", text, code)
		}
		if code == OK && !lonely(text) {
			if len(got) != len(want) {
				t.Fatalf("%q: %q and %q", text, got, want)
			}
			for name, value := range want {
				if got[name] != string(value) {
					t.Fatalf("%q: %s is %q and %q", text, name, got[name], value)
				}
			}
		}
	})
}

// A walk through an object allocates only where a name is escaped.
func TestEachMemberAllocates(t *testing.T) {
	text := []byte(`{"room":"chat:1","data":{"text":"hi"},"count":true}`)
	n := 0
	if allocs := testing.AllocsPerRun(100, func() { EachMember(text, func(name, _ []byte) bool { n += len(name); return true }) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkEachMember(b *testing.B) {
	text := fmt.Appendf(nil, `{"room":"chat:1","data":{"text":"%s"},"count":true}`, strings.Repeat("x", 128))
	b.ReportAllocs()
	for b.Loop() {
		EachMember(text, func(_, _ []byte) bool { return true })
	}
}
