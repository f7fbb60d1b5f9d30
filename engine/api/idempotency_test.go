package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

var (
	oneDigest     = digestOf("/v1/publish", []byte("{}"))
	anotherDigest = digestOf("/v1/publish", []byte("{ }"))
)

// play begins a request and ends it at once; it fails if the request is not new.
func (a *answers) play(t testing.TB, c identity, got answer, now time.Time) {
	t.Helper()
	m, _, p := a.begin(c, oneDigest, now)
	if m == nil {
		t.Fatalf("%v is not new: %+v", c, p)
	}
	a.end(m, got, now)
}

// The first answer is given again for ten minutes, to the same body of the same API key only.
func TestAnswersAreKept(t *testing.T) {
	var a answers
	c := identity{"shop", "1"}
	m, _, _ := a.begin(c, oneDigest, noon)
	if _, first, p := a.begin(c, oneDigest, noon); first != nil || p == nil || p.code != idempotencyInProgress {
		t.Errorf("under way: %v %+v", first, p)
	}
	if _, _, p := a.begin(c, anotherDigest, noon); p == nil || p.code != idempotencyMismatch {
		t.Errorf("another body: %+v", p)
	}
	if other, _, p := a.begin(identity{"blog", "1"}, oneDigest, noon); other == nil {
		t.Errorf("another API key: %+v", p)
	}
	a.end(m, answer{status: 200, body: []byte("{}")}, noon)
	if fresh, first, p := a.begin(c, oneDigest, noon.Add(answersSpan-1)); fresh != nil || p != nil || first == nil || string(first.body) != "{}" {
		t.Errorf("again: %v %v %+v", fresh, first, p)
	}
	if _, _, p := a.begin(c, anotherDigest, noon); p == nil || p.code != idempotencyMismatch {
		t.Errorf("another body later: %+v", p)
	}
	if _, _, p := a.begin(c, digestOf("/v1/batch", []byte("{}")), noon); p == nil || p.code != idempotencyMismatch {
		t.Errorf("another path: %+v", p)
	}
	if fresh, _, _ := a.begin(c, anotherDigest, noon.Add(answersSpan)); fresh == nil {
		t.Error("after ten minutes it is not new")
	}
}

// Answers of 500 and above are not kept, nor is a request that ended without any; those below are.
func TestFailedAnswersAreForgotten(t *testing.T) {
	for status, kept := range map[int]bool{0: false, 200: true, 400: true, 409: true, 499: true, 500: false, 503: false} {
		var a answers
		c := identity{"shop", "1"}
		a.play(t, c, answer{status: status}, noon)
		if _, first, _ := a.begin(c, oneDigest, noon); (first != nil) != kept {
			t.Errorf("%d: kept %v", status, first != nil)
		}
	}
}

// The newest 100,000 answers are kept, and the bytes of all are bounded.
func TestAnswersAreBounded(t *testing.T) {
	var a answers
	for i := range answersKeptMax + 10 {
		a.play(t, identity{"shop", fmt.Sprint(i)}, answer{status: 200, body: []byte("{}")}, noon)
	}
	if len(a.known) != answersKeptMax || a.known[identity{"shop", "9"}] != nil || a.known[identity{"shop", "10"}] == nil {
		t.Errorf("%d kept", len(a.known))
	}
	body := bytes.Repeat([]byte("x"), 1<<20)
	for i := range 100 {
		a.play(t, identity{"large", fmt.Sprint(i)}, answer{status: 200, body: body}, noon)
	}
	sum := 0
	for _, m := range a.order {
		sum += m.bytes()
	}
	if a.bytes > answersBytesMax || sum != a.bytes || len(a.order) != len(a.known) || a.known[identity{"large", "99"}] == nil {
		t.Errorf("%d bytes counted, %d kept; %d answers, %d known", a.bytes, sum, len(a.order), len(a.known))
	}
	under, _, _ := a.begin(identity{"open", "1"}, oneDigest, noon)
	a.forget(noon.Add(time.Hour))
	if a.bytes != 0 || len(a.known) != 1 || a.known[identity{"open", "1"}] != under {
		t.Errorf("an hour later: %d bytes, %d known; a request under way must stay", a.bytes, len(a.known))
	}
}

// An Idempotency-Key has 1 to 255 visible characters, and stands once.
func TestIdempotencyKeys(t *testing.T) {
	long := string(bytes.Repeat([]byte("k"), 255))
	for _, good := range [][]string{nil, {"a"}, {`"8e03-\x"`}, {long}, {"~!"}} {
		if _, p := idempotencyKey(good); p != nil {
			t.Errorf("%q: %+v", good, p)
		}
	}
	for _, bad := range [][]string{{""}, {"a b"}, {"a\tb"}, {"é"}, {"\x7f"}, {long + "k"}, {"a", "a"}} {
		if _, p := idempotencyKey(bad); p == nil || p.code != invalidRequest {
			t.Errorf("%q: %+v", bad, p)
		}
	}
}

// The first answer to an Idempotency-Key is given again, and the message is published once.
func TestIdempotentRequests(t *testing.T) {
	text, entry := makeKey(t, "other", "all")
	w := start(t, entry)
	member := w.dial("a")
	ask := func(key, path, body string) *http.Request {
		r := w.request(http.MethodPost, path, body)
		r.Header.Set("Idempotency-Key", key)
		return r
	}
	const body = `{"room":"a","message":{"type":"once"},"count":true}`
	for i := range 3 {
		resp, got := w.send(ask("k1", "/v1/publish", body))
		if replay := resp.Header.Get("Idempotent-Replay"); resp.StatusCode != 200 || got != `{"recipients":1}` || (replay == "true") != (i > 0) {
			t.Errorf("%d: %d %s %q", i, resp.StatusCode, got, replay)
		}
	}
	w.refused(ask("k1", "/v1/publish", body+" "), idempotencyMismatch)
	w.refused(ask("k1", "/v1/batch", body), idempotencyMismatch)
	theirs := ask("k1", "/v1/publish", `{"room":"a","message":{"type":"theirs"}}`)
	theirs.Header.Set("Authorization", "Bearer "+text)
	if resp, got := w.send(theirs); resp.StatusCode != 200 {
		t.Errorf("another API key: %d %s", resp.StatusCode, got)
	}
	w.expect(member, `{"type":"once"}`, `{"type":"theirs"}`)
	first := w.refused(ask("k2", "/v1/publish", `{}`), invalidRequest)
	if again := w.refused(ask("k2", "/v1/publish", `{}`), invalidRequest); again.Request != first.Request {
		t.Errorf("a refusal is not given again: %s, %s", first.Request, again.Request)
	}
	for _, bad := range []string{"a b", "é", strings.Repeat("k", 256)} {
		if p := w.refused(ask(bad, "/v1/publish", body), invalidRequest); !strings.Contains(p.Detail, "Idempotency-Key") {
			t.Error(p.Detail)
		}
	}
	twice := ask("a", "/v1/publish", body)
	twice.Header.Add("Idempotency-Key", "b")
	w.refused(twice, invalidRequest)
	w.expect(member)
}

// While the first request is under way, the same one gets 409; the engine's refusal is not kept.
func TestIdempotencyUnderWay(t *testing.T) {
	entered, leave := make(chan bool), make(chan *problem)
	w := startWith(t, func(s *Server) {
		s.routes["/v1/publish"].run = func(*Server, *call) ([]byte, *problem) {
			entered <- true
			return []byte("{}"), <-leave
		}
	})
	ask := func() *http.Request {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		r.Header.Set("Idempotency-Key", "k")
		return r
	}
	first := make(chan int)
	run := func() { resp, _ := w.send(ask()); first <- resp.StatusCode }
	for _, outcome := range []*problem{{code: overloaded}, {code: unavailable}, nil} {
		go run()
		<-entered
		w.refused(ask(), idempotencyInProgress)
		leave <- outcome
		if status := <-first; outcome != nil && status != 503 || outcome == nil && status != 200 {
			t.Errorf("%d", status)
		}
	}
	if resp, _ := w.send(ask()); resp.Header.Get("Idempotent-Replay") != "true" {
		t.Errorf("%v", resp.Header)
	}
}

// A request with an Idempotency-Key is carried out to its end although its client has hung up: the client asks again, and a
// request that had been broken off in the middle would be carried out a second time.
func TestIdempotencyOutlivesItsClient(t *testing.T) {
	w := startWith(t, func(s *Server) {
		s.routes["/v1/publish"].run = func(_ *Server, c *call) ([]byte, *problem) {
			if c.ctx.Err() != nil {
				return nil, &problem{code: unavailable}
			}
			return []byte("{}"), nil
		}
	})
	gone, hangUp := context.WithCancel(t.Context())
	hangUp()
	for key, want := range map[string]int{"": http.StatusServiceUnavailable, "k": http.StatusOK} {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`).WithContext(gone)
		if key != "" {
			r.Header.Set("Idempotency-Key", key)
		}
		answer := httptest.NewRecorder()
		w.api.http.Handler.ServeHTTP(answer, r)
		if answer.Code != want {
			t.Errorf("with the key %q: %d, want %d", key, answer.Code, want)
		}
	}
}
