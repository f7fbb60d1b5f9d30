package engine

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// A client whose fields do not fit is told which must be what, in words of the protocol.
func TestMismatch(t *testing.T) {
	type inner struct {
		N int8 `json:"n"`
	}
	type fields struct {
		Text   string         `json:"text"`
		On     bool           `json:"on"`
		Size   uint16         `json:"size"`
		Ratio  float64        `json:"ratio"`
		List   []string       `json:"list"`
		Inner  inner          `json:"inner"`
		ByName map[string]int `json:"by_name"`
		When   time.Time      `json:"when"`
	}
	w := newScript(t, nil)
	On(w.server.Server, "m", func(*Conn, fields, *Server) (any, error) { return M{"type": "fine"}, nil })
	c := w.welcome(0)
	const vague = `the fields of "m" are not of the kinds that its handler takes`
	for in, want := range map[string]string{
		`"text":5`:          `the field "text" of "m" must be a string`,
		`"on":"yes"`:        `the field "on" of "m" must be true or false`,
		`"size":-1`:         `the field "size" of "m" must be a whole number of at most 16 bits, not below 0`,
		`"size":70000`:      `the field "size" of "m" must be a whole number of at most 16 bits, not below 0`,
		`"ratio":"1"`:       `the field "ratio" of "m" must be a number`,
		`"list":{}`:         `the field "list" of "m" must be a list`,
		`"list":[1]`:        `the field "list" of "m" must be a string`,
		`"inner":[]`:        `the field "inner" of "m" must be an object`,
		`"inner":{"n":300}`: `the field "inner.n" of "m" must be a whole number of at most 8 bits`,
		`"by_name":7`:       `the field "by_name" of "m" must be an object`,
		`"when":"noon"`:     vague,
		`"when":5`:          vague,
	} {
		w.say(c, `{"type":"m",`+in+`}`)
		texts := w.expect(c, "error")
		var told struct{ Code, Message string }
		json.Unmarshal([]byte(texts[0]), &told)
		if told.Code != "invalid_message" || told.Message != want {
			t.Errorf("%s: %s %s, want %s", in, told.Code, told.Message, want)
		}
	}
	w.say(c, `{"type":"`+strings.Repeat("x", 63)+`日本"}`)
	if text := w.expect(c, "error")[0]; strings.Contains(text, `\\x`) {
		t.Error("a type is cut within a character:", text)
	}
}
