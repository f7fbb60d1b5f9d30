package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/parleyd/parley/engine"
)

// published is an answer to a publish.
type published struct {
	Recipients *int
	Seq        uint64
	Epoch      string
	Duplicate  bool
}

// publishes sends a publish with the key for everything.
func (w *world) publishes(format string, args ...any) (p published) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(w.post("/v1/publish", format, args...)), &p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// In a room with history the answer names the position, an exception gets a skip in its place, and the count leaves it out.
func TestPublishNumbers(t *testing.T) {
	w := startHistoric(t, "h*=messages:10")
	ann, bob := w.dialAs("ann", "", "h"), w.dialAs("bob", "", "h")
	first := w.publishes(`{"room":"h","data":{ "a" : 1 },"count":true}`)
	if first.Seq != 1 || first.Epoch == "" || *first.Recipients != 2 || first.Duplicate {
		t.Errorf("%+v", first)
	}
	for _, c := range []*client{ann, bob} {
		if got := c.next(); !strings.HasPrefix(got, `{"type":"broadcast","room":"h","data":{ "a" : 1 },"timestamp":`) || !strings.HasSuffix(got, `,"seq":1,"epoch":"`+first.Epoch+`"}`) {
			t.Error(got)
		}
	}
	for i, except := range []string{`"except":["` + bob.id + `","` + bob.id + `"]`, `"except_user":"bob"`, `"except_user":"bob","except":["` + bob.id + `","` + madeUp(bob.id) + `"]`} {
		p := w.publishes(`{"room":"h","message":{"type":"x"},"count":true,%s}`, except)
		if p.Seq != uint64(i+2) || *p.Recipients != 1 {
			t.Errorf("%s: %+v", except, p)
		}
		if got, want := bob.next(), fmt.Sprintf(`{"type":"skip","room":"h","seq":%d,"epoch":%q,"why":"excluded"}`, i+2, p.Epoch); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if got, want := ann.next(), fmt.Sprintf(`{"type":"x","seq":%d,"epoch":%q}`, i+2, p.Epoch); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if got := w.post("/v1/publish", `{"room":"h","message":{"type":"y"},"history":false,"count":true,"except":[%q]}`, ann.id); got != `{"recipients":1}` {
		t.Error(got)
	}
	w.expect(bob, `{"type":"y"}`)
	w.expect(ann)
	if p := w.publishes(`{"room":"h","data":1}`); p.Seq != 5 {
		t.Errorf("%+v", p)
	}
}

// madeUp is the id of a connection on a loop that the worker does not have.
func madeUp(id string) string { return id[:4] + "ff" + id[6:] }

// A message that cannot take a number is refused with the field; so is a key of another length.
func TestBadHistoricPublishes(t *testing.T) {
	w := startHistoric(t, "h*")
	for body, pointer := range map[string]string{
		`{"room":"h","message":{"type":"x","seq":1}}`:                                    "/message",
		`{"rooms":["plain","h"],"message":{"type":"x","epoch":"e"}}`:                     "/message",
		`{"room":"h","data":1,"idempotency_key":"` + strings.Repeat("k", 65) + `"}`:      "/idempotency_key",
		`{"room":"h","data":1,"idempotency_key":"` + strings.Repeat("\u00e9", 33) + `"}`: "/idempotency_key",
		`{"room":"h","data":1,"idempotency_key":7}`:                                      "/idempotency_key",
		`{"room":"h","data":1,"idempotency_key":"k","history":false}`:                    "/idempotency_key",
		`{"room":"h","data":1,"key":""}`:                                                 "/key",
		`{"room":"h","data":1,"key":"` + strings.Repeat("k", 65) + `"}`:                  "/key",
		`{"room":"h","data":1,"history":"no"}`:                                           "/history",
	} {
		if p := w.refused(w.request(http.MethodPost, "/v1/publish", body), invalidRequest); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", body, p)
		}
	}
	for body, says := range map[string]string{
		`{"room":"plain","data":1,"idempotency_key":"k"}`:                 `"plain" keeps no history`,
		`{"rooms":["h","plain"],"data":1,"idempotency_key":"k"}`:          `"plain" keeps no history`,
		`{"user":"ann","message":{"type":"x"},"idempotency_key":"k"}`:     `is for rooms with history`,
		`{"everybody":true,"message":{"type":"x"},"idempotency_key":"k"}`: `is for rooms with history`,
	} {
		if p := w.refused(w.request(http.MethodPost, "/v1/publish", body), noHistory); !strings.Contains(p.Detail, says) {
			t.Errorf("%s: %+v", body, p)
		}
	}
	w.refused(w.request(http.MethodGet, "/v1/history?room=h", ""), noHistory) // none of them has made the room
}

// A repeated idempotency key publishes nothing and answers with the first position. Its scope is the API key's id and the room.
func TestIdempotencyKeysInBodies(t *testing.T) {
	text, entry := makeKey(t, "shop", "publish")
	entry.Rooms = []string{"h:*"}
	w := startHistoric(t, "h:*", entry)
	member := w.dial("h:1")
	const body = `{"room":"h:1","message":{"type":"x"},"idempotency_key":"k"}`
	first := w.publishes(body)
	again := w.publishes(`{"room":"h:1","message":{"type":"another"},"idempotency_key":"k","count":true}`)
	if again.Seq != 1 || again.Epoch != first.Epoch || !again.Duplicate || *again.Recipients != 0 || first.Duplicate {
		t.Errorf("%+v, then %+v", first, again)
	}
	r := w.request(http.MethodPost, "/v1/publish", body)
	r.Header.Set("Authorization", "Bearer "+text)
	if _, got := w.send(r); got != fmt.Sprintf(`{"seq":2,"epoch":%q}`, first.Epoch) {
		t.Error("another key:", got)
	}
	if p := w.publishes(`{"room":"h:2","message":{"type":"x"},"idempotency_key":"k"}`); p.Seq != 1 || p.Duplicate {
		t.Errorf("another room: %+v", p)
	}
	if err := w.srv.Publish("h:1", map[string]string{"type": "x"}, engine.BroadcastOptions{IdempotencyKey: "k", Done: func(p engine.Published, _ error) {
		if p.Seq != 3 || p.Duplicate {
			t.Errorf("the server's own: %+v", p)
		}
	}}); err != nil {
		t.Error(err)
	}
	results := w.post("/v1/batch", `{"operations":[{"do":"publish",%[1]s,{"do":"publish","room":"h:1","data":1},{"do":"publish",%[1]s,{"do":"publish","room":"p","data":1}]}`, body[1:])
	if want := fmt.Sprintf(`{"results":[{"seq":1,"epoch":%[1]q,"duplicate":true},{"seq":4,"epoch":%[1]q},{"seq":1,"epoch":%[1]q,"duplicate":true},{}]}`, first.Epoch); results != want {
		t.Errorf("%s, want %s", results, want)
	}
	k := w.socketOf(w.all)
	k.say(`{"do":"publish","ref":1,` + body[1:])
	if got, want := k.next(), fmt.Sprintf(`{"ref":1,"result":{"seq":1,"epoch":%q,"duplicate":true}}`, first.Epoch); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	for seq := 1; seq <= 4; seq++ {
		if got := member.next(); !strings.Contains(got, fmt.Sprintf(`"seq":%d,`, seq)) {
			t.Error(got)
		}
	}
	w.expect(member)
}

// Requests with one key from many connections at once give one number.
func TestOneNumberForAKey(t *testing.T) {
	const connections, rounds = 16, 20
	w := startHistoric(t, "h")
	for round := range rounds {
		var all sync.WaitGroup
		var got [connections]published
		for i := range connections {
			all.Go(func() {
				transport := &http.Transport{}
				defer transport.CloseIdleConnections()
				resp, err := (&http.Client{Transport: transport, Timeout: patient}).Do(w.request(http.MethodPost, "/v1/publish", fmt.Sprintf(`{"room":"h","data":%d,"idempotency_key":"k%d"}`, i, round)))
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				if err := json.NewDecoder(resp.Body).Decode(&got[i]); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		fresh := 0
		for _, p := range got {
			if p.Seq != uint64(round+1) {
				t.Fatalf("round %d: %+v", round, got)
			}
			if !p.Duplicate {
				fresh++
			}
		}
		if fresh != 1 {
			t.Fatalf("round %d: %d were published", round, fresh)
		}
	}
}

// A room remembers the newest 4,096 keys: of 5,000, the last ones are duplicates, and the first ones count as new.
func TestManyIdempotencyKeys(t *testing.T) {
	const keys, remembered = 5000, 4096
	w := startHistoric(t, "h=messages:10")
	ask := func(from, to int) (list []published) {
		for ; from < to; from += 1000 {
			var operations []string
			for i := from; i < min(from+1000, to); i++ {
				operations = append(operations, fmt.Sprintf(`{"do":"publish","room":"h","data":1,"idempotency_key":"k%d"}`, i))
			}
			var answer struct{ Results []published }
			if err := json.Unmarshal([]byte(w.post("/v1/batch", `{"operations":[%s]}`, strings.Join(operations, ","))), &answer); err != nil {
				t.Fatal(err)
			}
			list = append(list, answer.Results...)
		}
		return list
	}
	for i, p := range ask(0, keys) {
		if p.Seq != uint64(i+1) || p.Duplicate {
			t.Fatalf("key %d: %+v", i, p)
		}
	}
	for i, p := range ask(keys-remembered, keys) {
		if want := uint64(keys - remembered + i + 1); p.Seq != want || !p.Duplicate {
			t.Fatalf("key %d again: %+v", i, p)
		}
	}
	if p := ask(keys-remembered-1, keys-remembered)[0]; p.Seq != keys+1 || p.Duplicate {
		t.Errorf("a key that is forgotten: %+v", p)
	}
}

// Each of several rooms with history numbers the message by itself and names itself in data; the others get it once.
func TestPublishToSeveralHistories(t *testing.T) {
	w := startHistoric(t, "h*")
	both, plain := w.dial("h1", "h2", "p1"), w.dial("p1", "p2")
	if got := w.post("/v1/publish", `{"rooms":["p1","h1","p2","h2","h1"],"data":7,"count":true}`); got != `{"recipients":4}` {
		t.Error(got)
	}
	for _, start := range []string{`{"type":"broadcast","room":"h1","data":7,`, `{"type":"broadcast","room":"h2","data":7,`, `{"type":"broadcast","room":"p1","data":7,`} {
		if got := both.next(); !strings.HasPrefix(got, start) || strings.Contains(got, `"seq":1`) != strings.Contains(start, `"h`) {
			t.Errorf("got %s, want %s", got, start)
		}
	}
	if got := plain.next(); !strings.HasPrefix(got, `{"type":"broadcast","room":"p1","data":7,`) {
		t.Error(got)
	}
	const body = `{"rooms":["h1","h2"],"message":{"type":"x"},"idempotency_key":"k","count":true}`
	if got := w.post("/v1/publish", `{"room":"h2","message":{"type":"x"},"idempotency_key":"k"}`); !strings.HasPrefix(got, `{"seq":2,`) {
		t.Error(got)
	}
	for _, want := range []string{`{"recipients":1}`, `{"recipients":0,"duplicate":true}`} {
		if got := w.post("/v1/publish", body); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	w.expect(plain)
}

// A history is read in both directions; what is missing is told.
func TestHistoryOfRoom(t *testing.T) {
	text, entry := makeKey(t, "shop", "read")
	entry.Rooms = []string{"h*"}
	w := startHistoric(t, "h*=messages:10", entry)
	var epoch string
	for i := range 13 {
		epoch = w.publishes(`{"room":"h","message":{ "type":"x", "n":%d, "html":"<&>" }}`, i+1).Epoch
	}
	at := func(query string) string { return "/v1/history?room=h" + strings.ReplaceAll(query, "E", epoch) }
	for query, want := range map[string]string{
		"":                                    "low 4 top 13: 4 5 6 7 8 9 10 11 12 13",
		"&limit=3":                            "low 4 top 13: 11 12 13 more",
		"&since_seq=3&epoch=E":                "low 4 top 13: 4 5 6 7 8 9 10 11 12 13",
		"&since_seq=3&epoch=E&limit=2":        "low 4 top 13: 4 5 more",
		"&since_seq=13&epoch=E":               "low 4 top 13:",
		"&since_seq=1&epoch=E&limit=1":        `low 4 top 13: 4 more gap {"from":2,"to":3}`,
		"&since_seq=99&epoch=E":               "low 4 top 13: gap ",
		"&since_seq=9007199254740991&epoch=E": "low 4 top 13: gap ",
		"&since_seq=5&epoch=other":            "low 4 top 13: gap ",
		"&before_seq=7&epoch=E&limit=2":       "low 4 top 13: 5 6 more",
		"&before_seq=6&epoch=E":               "low 4 top 13: 4 5",
		"&before_seq=0&epoch=E":               "low 4 top 13:",
		"&before_seq=99&epoch=E&limit=1":      "low 4 top 13: 13 more",
		"&before_seq=5&epoch=other&limit=1":   "low 4 top 13: 13 more gap ",
	} {
		r := w.request(http.MethodGet, at(query), "")
		r.Header.Set("Authorization", "Bearer "+text)
		resp, body := w.send(r)
		var page struct {
			Epoch    string
			Low, Top uint64
			Messages []struct {
				Seq     uint64
				Message json.RawMessage
			}
			More, Gap bool
			Missing   json.RawMessage
		}
		if err := json.Unmarshal([]byte(body), &page); err != nil || resp.StatusCode != 200 || page.Epoch != epoch {
			t.Fatalf("%s: %d %s", query, resp.StatusCode, body)
		}
		got := fmt.Sprintf("low %d top %d:", page.Low, page.Top)
		for _, m := range page.Messages {
			got += fmt.Sprint(" ", m.Seq)
			if want := fmt.Sprintf(`{ "type":"x", "n":%d, "html":"<&>","seq":%d,"epoch":%q}`, m.Seq, m.Seq, epoch); string(m.Message) != want {
				t.Errorf("%s, want %s", m.Message, want)
			}
		}
		if page.More {
			got += " more"
		}
		if page.Gap {
			got += " gap " + string(page.Missing)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	k := w.socketOf(w.all)
	k.say(fmt.Sprintf(`{"do":"history","ref":1,"room":"h","since_seq":12,"epoch":%q}`, epoch))
	if got, want := k.next(), fmt.Sprintf(`{"ref":1,"result":{"epoch":%[1]q,"low":4,"top":13,"messages":[{"seq":13,"message":{ "type":"x", "n":13, "html":"<&>","seq":13,"epoch":%[1]q}}],"more":false}}`, epoch); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A read of a history that is malformed, of a room without history, or of one that the key is not for, is refused.
func TestBadReadsOfHistory(t *testing.T) {
	text, entry := makeKey(t, "shop", "read")
	entry.Rooms = []string{"shop:*"}
	writer, other := makeKey(t, "writer", "publish")
	w := startHistoric(t, "h*", entry, other)
	w.publishes(`{"room":"h","data":1}`)
	w.dial("plain")
	for query, pointer := range map[string]string{
		"since_seq=1": "/epoch", "before_seq=1": "/epoch", "epoch=e": "/epoch", "since_seq=1&before_seq=2&epoch=e": "/before_seq",
		"since_seq=-1&epoch=e": "/since_seq", "since_seq=x&epoch=e": "/since_seq", "since_seq=&epoch=e": "/since_seq", "since_seq=1.0&epoch=e": "/since_seq",
		"since_seq=9007199254740992&epoch=e": "/since_seq", "before_seq=18446744073709551616&epoch=e": "/before_seq", "since_seq=1&since_seq=2&epoch=e": "/since_seq",
		"since_seq=1&epoch=": "/epoch", "since_seq=1&epoch=%C3%A4": "/epoch", "since_seq=1&epoch=" + strings.Repeat("e", 23): "/epoch",
		"limit=0": "/limit", "limit=101": "/limit", "limit=x": "/limit", "after=x": "/after", "seq=1": "/seq",
	} {
		if p := w.refused(w.request(http.MethodGet, "/v1/history?room=h&"+query, ""), invalidRequest); len(p.Errors) != 1 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", query, p)
		}
	}
	w.refused(w.request(http.MethodGet, "/v1/history", ""), invalidRoom)
	w.refused(w.request(http.MethodGet, "/v1/history?room="+url.QueryEscape("a\x00"), ""), invalidRoom)
	for room, says := range map[string]string{"plain": "", "nowhere": "", "h2": "begins with the next one"} {
		if p := w.refused(w.request(http.MethodGet, "/v1/history?room="+room, ""), noHistory); p.Detail != "" && !strings.Contains(p.Detail, says) || (p.Detail == "") != (says == "") {
			t.Errorf("%s: %+v", room, p)
		}
	}
	for key, says := range map[string]string{text: `not for the room "h"`, writer: "lacks the scope read"} {
		r := w.request(http.MethodGet, "/v1/history?room=h", "")
		r.Header.Set("Authorization", "Bearer "+key)
		if p := w.refused(r, forbidden); !strings.Contains(p.Detail, says) {
			t.Error(p.Detail)
		}
	}
	w.refused(w.request(http.MethodPost, "/v1/history", `{}`), methodNotAllowed)
}

// A room is created with a history, or without the one that the setting gives it, and its bounds are changed; lists show it.
func TestHistoryOfCreatedRooms(t *testing.T) {
	w := startHistoric(t, "h*=messages:10")
	create := func(room, history string) {
		t.Helper()
		if resp, got := w.send(w.request(http.MethodPost, "/v1/rooms/create", fmt.Sprintf(`{"room":%q,"history":%s}`, room, history))); resp.StatusCode != 201 {
			t.Fatalf("%d %s", resp.StatusCode, got)
		}
	}
	create("news", `{"messages":2,"bytes":1000,"age":"1h","slow":"conflate"}`)
	create("usual", `{}`)
	create("hushed", `false`)
	shows := func(room, want string) {
		t.Helper()
		for _, path := range []string{"/v1/room?room=" + room, "/v1/rooms?match=" + room} {
			_, got := w.send(w.request(http.MethodGet, path, ""))
			if (want == "") == strings.Contains(got, `"history"`) || !strings.Contains(got, want) {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
	}
	var p published
	for range 5 {
		p = w.publishes(`{"room":"news","data":1,"key":"k"}`)
	}
	shows("news", fmt.Sprintf(`"history":{"seq":5,"epoch":%q,"messages":2}`, p.Epoch))
	shows("usual", `"history":{"seq":0,"epoch":"`)
	shows("hushed", "")
	if got := w.post("/v1/publish", `{"room":"hushed","data":1}`); got != "{}" {
		t.Error(got)
	}
	if got := w.post("/v1/rooms/update", `{"room":"news","history":{"messages":1}}`); got != "{}" {
		t.Error(got)
	}
	shows("news", fmt.Sprintf(`"history":{"seq":5,"epoch":%q,"messages":1}`, p.Epoch))
	w.post("/v1/rooms/update", `{"room":"hushed","history":{}}`)
	shows("hushed", `"history":{"seq":0,`)
	for _, path := range []string{"/v1/rooms/create", "/v1/rooms/update"} {
		for history, pointer := range map[string]string{
			`true`: "/history", `null`: "/history", `"100"`: "/history", `[]`: "/history", `{"messages":0}`: "/history/messages", `{"messages":-1}`: "/history/messages",
			`{"messages":100001}`: "/history/messages", `{"messages":1.5}`: "/history/messages", `{"bytes":67108865}`: "/history/bytes", `{"age":300}`: "/history/age",
			`{"age":"0s"}`: "/history/age", `{"age":"721h"}`: "/history/age", `{"slow":"block"}`: "/history/slow", `{"slow":1}`: "/history/slow", `{"mesages":1}`: "/history/mesages",
			`{"messages":1,"messages":1}`: "/history/messages",
		} {
			if e := w.refused(w.request(http.MethodPost, path, `{"room":"x","history":`+history+`}`), invalidRequest); len(e.Errors) != 1 || e.Errors[0].Pointer != pointer {
				t.Errorf("%s: %+v", history, e)
			}
		}
	}
}

// If the second of two rooms refuses a message, the answer says that the first has it; a repetition with the key completes it.
func TestRepetitionCompletes(t *testing.T) {
	held, release := make(chan bool), make(chan bool)
	w := startHistoric(t, "h*=messages:10")
	w.srv.On("hold", func(*engine.Conn, *engine.Message, *engine.Server) (any, error) {
		held <- true
		<-release
		return nil, nil
	})
	member := w.dial("h2")
	member.say(`{"type":"hold"}`)
	<-held
	big := fmt.Sprintf(`{"room":"h2","message":{"type":"x","text":%q}}`, strings.Repeat("x", int(w.api.publishMax.bytes)-200))
	status := 200
	for tries := 0; status == 200 && tries < 20_000; tries++ {
		resp, _ := w.send(w.request(http.MethodPost, "/v1/publish", big))
		status = resp.StatusCode
	}
	text := strings.Repeat("y", int(w.api.publishMax.bytes)-300)
	both := fmt.Sprintf(`{"rooms":["h1","h2"],"message":{"type":"y","text":%q},"idempotency_key":"k"}`, text)
	for range 2 {
		if p := w.refused(w.request(http.MethodPost, "/v1/publish", both), unavailable); !strings.HasPrefix(p.Detail, "1 of the rooms have the message") || !strings.Contains(p.Detail, "repeat the request") {
			t.Errorf("%+v", p)
		}
	}
	close(release)
	eventually(t, "the repetition is taken", func() bool {
		resp, got := w.send(w.request(http.MethodPost, "/v1/publish", both))
		return resp.StatusCode == 200 && got == "{}"
	})
	if got := w.post("/v1/publish", "%s", both); got != `{"duplicate":true}` {
		t.Error(got)
	}
	for _, room := range []string{"h1", "h2"} {
		page, err := w.srv.History(t.Context(), room, engine.HistoryQuery{})
		n := 0
		for _, m := range page.Messages {
			n += strings.Count(string(m.Message), `"type":"y"`)
		}
		if err != nil || room == "h1" && page.Top != 1 || n != 1 {
			t.Errorf("%s: %d messages, top %d (%v)", room, n, page.Top, err)
		}
	}
}
