package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/bytedance/sonic"
)

// A body that is not one JSON object of known fields is refused, with the pointer of each fault [RFC 6901 §3].
func TestBadBodies(t *testing.T) {
	w := start(t)
	deep := strings.Repeat(`[`, 64) + strings.Repeat(`]`, 64)
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf(`"x%d":1`, i)
	}
	for _, row := range []struct{ body, pointer, says string }{
		{``, "", "the body is empty"},
		{` `, "", "the body is empty"},
		{`null`, "", "one JSON object"},
		{`[]`, "", "one JSON object"},
		{`"room"`, "", "one JSON object"},
		{"\xef\xbb\xbf{}", "", "at byte 1"}, // a byte order mark
		{`{"room":"a","data":1}{"room":"b","data":2}`, "", "at byte 22"},
		{`{"room":"a","data":1} x`, "", "at byte 23"},
		{`{"room":"a","data":1`, "", "at byte"},
		{`{"room":"a","data":01}`, "", "at byte 21"},
		{`{"room":"a","data":NaN}`, "", "at byte"},
		{`{"room":"a","data":'x'}`, "", "at byte"},
		{`{"room":"a","data":1,}`, "", "at byte"},
		{`{"room":"a","data":` + deep + `}`, "", "nested deeper than 64"},
		{`{"room":"a","data":"\ud800"}`, "", "half a surrogate pair"},
		{`{"rom":"a","data":1}`, "/rom", `did you mean "room"?`},
		{`{"Room":"a","data":1}`, "/Room", `did you mean "room"?`},
		{`{"room":"a","data":1,"mesage":{"type":"x"}}`, "/mesage", `did you mean "message"?`},
		{`{"room":"a","data":1,"":2}`, "/", "no such field"},
		{`{"room":"a","data":1,"a/b~c":2}`, "/a~1b~0c", "no such field"},
		{`{"room":"a","data":1,"do":"publish"}`, "/do", "no such field"},
		{`{"room":"a","room":"b","data":1}`, "/room", "stands twice"},
		{`{"room":"a","r\u006fom":"b","data":1}`, "/room", "stands twice"},
		{`{"room":1,"data":1}`, "/room", "give a string, not a number"},
		{`{"room":null,"data":1}`, "/room", "give a string, not null"},
		{`{"rooms":"a","data":1}`, "/rooms", "give a list of strings, not a string"},
		{`{"rooms":["a",{}],"data":1}`, "/rooms", "element 1: give a string, not an object"},
		{`{"room":"a","data":1,"count":1}`, "/count", "give true or false, not a number"},
		{`{"room":"a","data":1,"count":"true"}`, "/count", "give true or false, not a string"},
		{`{"room":"a","data":1,"except":{}}`, "/except", "give a list of strings, not an object"},
		{`{"room":"a","data":1,"except":[` + strings.Repeat(`"x",`, 1000) + `"x"]}`, "/except", "at most 1000"},
		{`{"room":"a","data":1,"` + strings.Repeat("é", 5000) + `":1}`, "/" + strings.Repeat("é", 32) + "...", "no such field"},
	} {
		p := w.refused(w.request(http.MethodPost, "/v1/publish", row.body), invalidRequest)
		if len(p.Errors) != 1 || p.Errors[0].Pointer != row.pointer || !strings.Contains(p.Errors[0].Detail, row.says) {
			t.Errorf("%.80s: %+v, want %s: %s", row.body, p.Errors, row.pointer, row.says)
		}
	}
	if p := w.refused(w.request(http.MethodPost, "/v1/publish", `{`+strings.Join(many, ",")+`}`), invalidRequest); len(p.Errors) != faultsMax {
		t.Errorf("%d faults of 100", len(p.Errors))
	}
	for _, invalid := range []string{"{\"room\":\"\xff\",\"data\":1}", "{\"room\":\"a\",\"data\":\"\xed\xa0\x80\"}", "{\"room\":\"a\",\"data\":\"" + strings.Repeat("x", 1000) + "\xc3\"}"} {
		if p := w.refused(w.request(http.MethodPost, "/v1/publish", invalid), invalidRequest); !strings.Contains(p.Detail, "UTF-8") {
			t.Errorf("%q: %s", invalid, p.Detail)
		}
	}
	w.post("/v1/publish", `{"room":"a","data":1}`)
}

// A body is taken as application/json in UTF-8 alone.
func TestContentTypes(t *testing.T) {
	w := start(t)
	for kind, good := range map[string]bool{
		"application/json": true, "application/json; charset=utf-8": true, "application/json;charset=UTF-8": true, "Application/JSON": true,
		"application/json; charset=utf-16": false, "application/json; version=1": false, "text/json": false, "text/plain": false, "application/problem+json": false,
		"application/x-www-form-urlencoded": false, "application/json, text/plain": false, "": false, ";": false,
	} {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		if r.Header.Del("Content-Type"); kind != "" {
			r.Header.Set("Content-Type", kind)
		}
		if good {
			if resp, got := w.send(r); resp.StatusCode != 200 {
				t.Errorf("%s: %d %s", kind, resp.StatusCode, got)
			}
			continue
		}
		w.refused(r, unsupportedMediaType)
	}
	twice := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	twice.Header.Add("Content-Type", "text/plain")
	w.refused(twice, unsupportedMediaType)
	packed := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	packed.Header.Set("Content-Encoding", "gzip")
	w.refused(packed, unsupportedMediaType)
}

// A body over the bound is refused and names the setting, whether its length is told before or not; one at the bound is taken.
func TestLargeBodies(t *testing.T) {
	w := start(t)
	most := int(w.api.publishMax.bytes)
	body := func(n int) string {
		const frame = `{"room":"a","data":""}`
		return strings.Replace(frame, `""`, `"`+strings.Repeat("x", n-len(frame))+`"`, 1)
	}
	w.post("/v1/publish", "%s", body(most))
	for _, chunked := range []bool{false, true} {
		r := w.request(http.MethodPost, "/v1/publish", body(most+1))
		if chunked {
			r.Body, r.ContentLength, r.GetBody = io.NopCloser(strings.NewReader(body(most+1))), -1, nil
		}
		if p := w.refused(r, tooLarge); !strings.Contains(p.Detail, "message_bytes_max") {
			t.Errorf("chunked %v: %s", chunked, p.Detail)
		}
	}
	inBatch := w.post("/v1/batch", `{"operations":[%s]}`, `{"do":"publish",`+body(most + 1)[1:])
	if !strings.Contains(inBatch, `"code":"too_large"`) {
		t.Error(inBatch)
	}
	if p := w.refused(w.request(http.MethodPost, "/v1/batch", body(batchBytesMax+1)), tooLarge); !strings.Contains(p.Detail, "4 MiB") {
		t.Error(p.Detail)
	}
}

// raw opens a connection on which the test writes HTTP by hand.
func (w *world) raw() (net.Conn, *bufio.Reader) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	return conn, bufio.NewReader(conn)
}

// head is the head of a publish of length bytes, or in chunks.
func (w *world) head(length int) string {
	if length < 0 {
		return "POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + w.all + "\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
	}
	return fmt.Sprintf("POST /v1/publish HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", w.all, length)
}

// readAnswer reads an answer by hand and holds it against the contract.
func (w *world) readAnswer(in *bufio.Reader, sent string) (*http.Response, string) {
	w.t.Helper()
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, fault := range theContract().check(exchange{http.MethodPost, "/v1/publish", nil, []byte(sent), resp.StatusCode, resp.Header, body}) {
		w.t.Error(fault)
	}
	return resp, string(body)
}

// A body that is cut, whose chunks are malformed or that comes too slowly is answered, and has no effect.
func TestBrokenBodies(t *testing.T) {
	w := startWith(t, func(s *Server) { s.http.ReadTimeout, s.http.WriteTimeout = time.Second, time.Second })
	member := w.dial("a")
	for name, row := range map[string]struct {
		text string
		cut  bool
		says string
	}{
		"cut":               {w.head(100) + `{"room":"a","data":1}`, true, "cut"},
		"cut in a chunk":    {w.head(-1) + "ff\r\n" + `{"room":"a","data":1}`, true, "cut"},
		"a malformed chunk": {w.head(-1) + "zz\r\n" + `{"room":"a","data":1}`, false, "malformed"},
		"slow":              {w.head(100) + `{"room":"a","data":1}`, false, "did not arrive in time: 21 bytes did"},
		"slow in chunks":    {w.head(-1) + "15\r\n" + `{"room":"a","data":1}` + "\r\n", false, "did not arrive in time"},
	} {
		conn, in := w.raw()
		if _, err := io.WriteString(conn, row.text); err != nil {
			t.Fatal(err)
		}
		if row.cut {
			conn.(*net.TCPConn).CloseWrite()
		}
		resp, body := w.readAnswer(in, "")
		if resp.StatusCode != 400 || !strings.Contains(body, row.says) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("%s: the connection goes on: %v", name, err)
		}
	}
	w.expect(member)
}

// JSON that is passed on arrives as it was sent: large numbers, spaces, escapes, and what stands twice inside data.
func TestDataIsPassedOnUnchanged(t *testing.T) {
	w := start(t)
	member := w.dial("a")
	for _, data := range []string{"9007199254740993", "123456789012345678901234567890", "1.10", "-0", "1E400", `{"a" : [1,  2]}`, `"\u0041\/\ud83d\ude00"`, `{"x":1,"x":2}`, "null", `"é<>&"`} {
		w.post("/v1/publish", `{"room":"a","data": %s }`, data)
		if got := member.next(); !strings.HasPrefix(got, `{"type":"broadcast","room":"a","data":`+data+`,"timestamp":`) {
			t.Errorf("%s became %s", data, got)
		}
		sent := `{"data":` + data + `, "type" : "x"}`
		w.post("/v1/publish", `{"room":"a","message":%s}`, sent)
		if got := member.next(); got != sent {
			t.Errorf("%s became %s", sent, got)
		}
	}
}

// No body, however it is made, gets another answer than a success or a refusal; and only JSON objects get a success.
func FuzzPublishFields(f *testing.F) {
	for _, body := range []string{`{"room":"a","data":1}`, `{"where":{"attribute":"a","value":[]},"message":{"type":"x"}}`, `{"rooms":["a"],"except":[]}`, `{"rooms":[],"data":1}`, `{"x":{}}`, `{"room":"a","room":1}`} {
		f.Add([]byte(body))
	}
	c := call{key: &key{scopes: scopeAll}}
	f.Fuzz(func(t *testing.T, body []byte) {
		if !utf8.Valid(body) {
			return
		}
		var p publishRequest
		c.object = object{raw: body}
		wrong := publishFields.decode(c.object, &p)
		if wrong == nil {
			wrong = p.check(&c)
		}
		if wrong != nil {
			if doc := wrong.append(nil, "r_0123456789abcdef"); theContract().hold(doc, "components", "schemas", "Problem") != nil {
				t.Fatalf("%q: %s", body, doc)
			}
			return
		}
		if err := theContract().hold(body, "components", "schemas", "Publish"); err != nil && !strings.Contains(err.Error(), "maxLength") {
			t.Fatalf("%q is taken, and the document refuses it: %v", body, err)
		}
		if p.toNone() {
			return // there is nothing to send
		}
		if !json.Valid(p.payload(p.first(), noon)) {
			t.Fatalf("%q: sends %q", body, p.payload(p.first(), noon))
		}
	})
}

var benchBody = []byte(`{"room":"chat:1","data":{"text":"` + strings.Repeat("x", 128) + `"},"count":true}`)

func BenchmarkDecodeByHand(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var p publishRequest
		if publishFields.decode(object{raw: benchBody}, &p) != nil {
			b.Fatal("refused")
		}
	}
}

// What the libraries would cost, without the checks that they do not have: names that stand twice, pointers.
func BenchmarkDecodeByLibrary(b *testing.B) {
	type body struct {
		Room    *string         `json:"room"`
		Data    json.RawMessage `json:"data"`
		Message json.RawMessage `json:"message"`
		Count   bool            `json:"count"`
	}
	strict := sonic.Config{CopyString: true, ValidateString: true, CaseSensitive: true, DisallowUnknownFields: true}.Froze()
	for name, decode := range map[string]func([]byte, any) error{"sonic": strict.Unmarshal, "encoding/json": json.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var p body
				if err := decode(benchBody, &p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
