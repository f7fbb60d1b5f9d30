package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/proxy"
)

// Paths and methods that are not served are told apart, and the answer to a wrong method names the right ones.
func TestPathsAndMethods(t *testing.T) {
	w := start(t)
	for _, row := range []struct {
		method, path, allow string
		code                code
	}{
		{"GET", "/", "", notFound},
		{"GET", "/v1", "", notFound},
		{"GET", "/v1/conns", "", notFound},
		{"POST", "/v1/publish/", "", notFound},
		{"POST", "//v1/publish", "", notFound},
		{"POST", "/v1/../v1/publish", "", notFound},
		{"POST", "/v1%2Fpublish", "", notFound},
		{"POST", "/v1/%70ublish", "", notFound},
		{"POST", "/V1/publish", "", notFound},
		{"POST", "/v1/" + strings.Repeat("x", 5000), "", notFound},
		{"GET", "/v1/publish", "POST", methodNotAllowed},
		{"HEAD", "/v1/publish", "POST", methodNotAllowed},
		{"PUT", "/v1/batch", "POST", methodNotAllowed},
		{"OPTIONS", "/v1/publish", "POST", methodNotAllowed},
		{"OS", "/v1/publish", "POST", methodNotAllowed},
		{"post", "/v1/publish", "POST", methodNotAllowed},
		{"POST", "/v1/health", "GET, HEAD", methodNotAllowed},
		{"DELETE", "/openapi.json", "GET, HEAD", methodNotAllowed},
	} {
		r := w.request(row.method, row.path, "{}")
		if row.method == "HEAD" {
			resp, _ := w.send(r)
			if resp.StatusCode != 405 || resp.Header.Get("Allow") != row.allow {
				t.Errorf("%+v: %d %v", row, resp.StatusCode, resp.Header)
			}
			continue
		}
		w.refused(r, row.code)
		if resp, _ := w.send(w.request(row.method, row.path, "{}")); resp.Header.Get("Allow") != row.allow {
			t.Errorf("%s %s allows %q", row.method, row.path, resp.Header.Get("Allow"))
		}
	}
	if resp, got := w.send(w.request("HEAD", "/v1/health", "")); resp.StatusCode != 200 || got != "" || resp.ContentLength != 15 {
		t.Errorf("%d %q %d", resp.StatusCode, got, resp.ContentLength)
	}
}

// No answer has a field with which a page of a browser could read it.
func TestNoCrossOrigin(t *testing.T) {
	w := start(t)
	for _, method := range []string{"OPTIONS", "POST"} {
		r := w.request(method, "/v1/publish", `{"room":"a","data":1}`)
		r.Header.Set("Origin", "https://example.com")
		r.Header.Set("Access-Control-Request-Method", "POST")
		resp, _ := w.send(r)
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control") {
				t.Errorf("%s: %s", method, name)
			}
		}
		if resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%v", resp.Header)
		}
	}
}

// A key in a query or a path is refused and named a mistake, and is not in the log; so is any other parameter refused.
func TestQueries(t *testing.T) {
	w := start(t)
	escaped := strings.Replace(w.all, "_", "%5F", 1)
	for _, query := range []string{"key=x", "api_key=" + w.all, "x=" + w.all, w.all, "X=" + escaped, "Token=1", "access_token=", "a=1&a=" + w.all} {
		for _, path := range []string{"/v1/publish", "/v1/health", "/nowhere"} {
			r := w.request(http.MethodPost, path+"?"+query, `{"room":"a","data":1}`)
			r.Header.Del("Authorization")
			if p := w.refused(r, invalidRequest); !strings.Contains(p.Detail, "mistake") || strings.Contains(p.Detail, w.all) {
				t.Errorf("%s: %s", query, p.Detail)
			}
		}
	}
	for query, says := range map[string]string{"room=a": `no parameter "room"`, "a;b": "malformed", "%zz": "malformed", "pk_short=1": `no parameter "pk_short"`} {
		if p := w.refused(w.request(http.MethodPost, "/v1/publish?"+query, `{"room":"a","data":1}`), invalidRequest); !strings.Contains(p.Detail, says) {
			t.Errorf("%s: %s", query, p.Detail)
		}
	}
	for _, path := range []string{"/v1/" + w.all, "/" + escaped + "/x"} {
		r := w.request(http.MethodGet, path, "")
		r.Header.Del("Authorization")
		if p := w.refused(r, invalidRequest); !strings.Contains(p.Detail, "mistake") || strings.Contains(p.Detail, w.all) {
			t.Errorf("%s: %s", path, p.Detail)
		}
	}
	if strings.Contains(w.log.String(), w.all) {
		t.Error("the log has the key")
	}
}

// Without one good key in the one field there is no answer but 401, and all bad keys get the same one.
func TestAuthentication(t *testing.T) {
	old, oldEntry := makeKey(t, "old", "all")
	oldEntry.Until = "2020-01-01"
	w := start(t, oldEntry)
	stranger, _ := makeKey(t, "all")
	unknown, _ := makeKey(t, "unknown")
	details := map[string]string{}
	for name, values := range map[string][]string{
		"none": nil, "empty": {""}, "no scheme": {w.all}, "basic": {"Basic " + w.all}, "two": {"Bearer " + w.all, "Bearer " + w.all}, "wrong": {"Bearer " + stranger},
		"unknown": {"Bearer " + unknown}, "late": {"Bearer " + old}, "cut": {"Bearer " + w.all[:len(w.all)-1]}, "long": {"Bearer " + strings.Repeat("x", 8000)}, "a list": {"Bearer " + w.all + ", Bearer x"},
	} {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		r.Header["Authorization"] = values
		details[name] = w.refused(r, unauthenticated).Detail
	}
	if details["wrong"] != details["unknown"] || details["cut"] != details["wrong"] || !strings.Contains(details["late"], "2020-01-01") {
		t.Errorf("%q", details)
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER  "} {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		r.Header.Set("Authorization", scheme+w.all)
		if resp, got := w.send(r); resp.StatusCode != 200 {
			t.Errorf("%q: %d %s", scheme, resp.StatusCode, got)
		}
	}
	cookie := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	cookie.Header.Del("Authorization")
	cookie.Header.Set("Cookie", "key="+w.all)
	w.refused(cookie, unauthenticated)
	if log := w.log.String(); strings.Contains(log, w.all[10:]) || strings.Contains(log, stranger[10:]) || strings.Count(log, "a request to the HTTP API has no valid key") != 12 {
		t.Error("the log has a secret, or not a line for each refusal:", log)
	}
}

// After 20 failures an address gets 429 with a time to wait, with a good key too; paths without a key are served on.
func TestFailuresAreLimited(t *testing.T) {
	w := start(t)
	for range failuresMax {
		guess, _ := makeKey(t, "all")
		r := w.request(http.MethodPost, "/nowhere", "")
		r.Header.Set("Authorization", "Bearer "+guess)
		w.refused(r, unauthenticated)
	}
	r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	resp, got := w.send(r)
	if wait := resp.Header.Get("Retry-After"); resp.StatusCode != 429 || !regexp.MustCompile(`^([1-9]|[1-5]\d|60)$`).MatchString(wait) || !strings.Contains(got, wait+" seconds") {
		t.Errorf("%d %s %s", resp.StatusCode, wait, got)
	}
	if resp, got := w.send(w.request(http.MethodGet, "/v1/health", "")); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	w.api.failures.mu.Lock()
	for _, one := range w.api.failures.known {
		one.until = time.Now()
	}
	w.api.failures.mu.Unlock()
	w.post("/v1/publish", `{"room":"a","data":1}`)
}

// 100,000 wrong keys from many addresses, as a trusted proxy tells them, take bounded memory and lock out no other address.
func TestManyGuesses(t *testing.T) {
	trusted, err := proxy.NewTrust([]string{"loopback"})
	if err != nil {
		t.Fatal(err)
	}
	w := startWith(t, func(s *Server) { s.trusted = trusted })
	from := func(field, value, key string) *http.Request {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set(field, value)
		return r
	}
	for field, value := range map[string]string{"X-Forwarded-For": "192.0.2.7", "X-Real-Ip": "192.0.2.8", "Forwarded": "for=192.0.2.9"} {
		for range failuresMax {
			w.refused(from(field, value, "x"), unauthenticated)
		}
		w.refused(from(field, value, w.all), rateLimited)
	}
	for i := range 100_000 {
		w.api.failures.add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), time.Now())
	}
	for _, value := range []string{"10.1.134.159", "198.51.100.1", "junk"} {
		if resp, got := w.send(from("X-Forwarded-For", value, w.all)); resp.StatusCode != 200 {
			t.Errorf("%s: %d %s", value, resp.StatusCode, got)
		}
	}
	if n := len(w.api.failures.known); n > failuresKeptMax {
		t.Errorf("%d addresses are kept", n)
	}
}

// New keys count from the next request on.
func TestSetKeys(t *testing.T) {
	w := start(t)
	w.post("/v1/publish", `{"room":"a","data":1}`)
	fresh, entry := makeKey(t, "fresh", "publish")
	w.api.SetKeys(compile(t, entry))
	w.refused(w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`), unauthenticated)
	r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	r.Header.Set("Authorization", "Bearer "+fresh)
	if resp, got := w.send(r); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	w.api.SetKeys(nil)
	w.refused(w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`), unauthenticated)
}

// Every answer has an id of its own, which is in the log with the key's id.
func TestRequestIDs(t *testing.T) {
	w := start(t)
	seen := map[string]bool{}
	for range 50 {
		resp, _ := w.send(w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`))
		id := resp.Header.Get("Parley-Request")
		if seen[id] || !strings.Contains(w.log.String(), "request="+id+" method=POST path=/v1/publish key=all status=200") {
			t.Errorf("%s: seen before, or not in the log", id)
		}
		seen[id] = true
	}
}

// An action that changes something is logged with the key's id, and with what came of it.
func TestActionsAreLogged(t *testing.T) {
	w := startWith(t, func(s *Server) {
		s.routes["/v1/publish"].changes = true
	})
	w.post("/v1/publish", `{"room":"a","data":1}`)
	w.refused(w.request(http.MethodPost, "/v1/publish", `{}`), invalidRequest)
	for _, line := range []string{`level=INFO msg="api action" do=/v1/publish key=all request=r_`, "outcome=ok", "outcome=invalid_request"} {
		if !strings.Contains(w.log.String(), line) {
			t.Errorf("no %q in the log", line)
		}
	}
}

// A panic costs its request only: the answer is 500 with the id that the log has, and an idempotent request is forgotten.
func TestPanics(t *testing.T) {
	calm := false
	w := startWith(t, func(s *Server) {
		run := s.routes["/v1/publish"].run
		s.routes["/v1/publish"].run = func(s *Server, c *call) ([]byte, *problem) {
			if !calm {
				panic("planted")
			}
			return run(s, c)
		}
	})
	for range 2 {
		r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
		r.Header.Set("Idempotency-Key", "1")
		p := w.refused(r, internal)
		if log := w.log.String(); !strings.Contains(log, "planted") || !strings.Contains(log, "request="+p.Request) {
			t.Error(log)
		}
	}
	calm = true
	r := w.request(http.MethodPost, "/v1/publish", `{"room":"a","data":1}`)
	r.Header.Set("Idempotency-Key", "1")
	if resp, got := w.send(r); resp.StatusCode != 200 || resp.Header.Get("Idempotent-Replay") != "" {
		t.Errorf("%d %s %v", resp.StatusCode, got, resp.Header)
	}
}

// An engine that does not serve is told by 503, without details.
func TestHealth(t *testing.T) {
	for _, row := range []struct {
		serves bool
		status int
		answer string
	}{{true, 200, `{"status":"ok"}`}, {false, 503, ""}} {
		w := start(t)
		if !row.serves {
			ctx, cancel := context.WithTimeout(context.Background(), patient)
			defer cancel()
			if err := w.srv.Shutdown(ctx); err != nil {
				t.Fatal(err)
			}
		}
		r := w.request(http.MethodGet, "/v1/health", "")
		r.Header.Del("Authorization")
		resp, got := w.send(r)
		if resp.StatusCode != row.status || row.serves && got != row.answer {
			t.Errorf("%d %s", resp.StatusCode, got)
		}
		if !row.serves && (strings.Contains(got, "detail") || resp.Header.Get("Retry-After") != "1") {
			t.Errorf("%s %v", got, resp.Header)
		}
	}
}

// One question to the engine answers all who ask within a second.
func TestHealthIsRemembered(t *testing.T) {
	var m healthMemory
	asked := 0
	healthy := func(context.Context) error { asked++; return nil }
	for i := range 10 {
		m.ask(healthy, noon.Add(time.Duration(i)*100*time.Millisecond))
	}
	if asked != 1 {
		t.Errorf("asked %d times in a second", asked)
	}
	if m.ask(healthy, noon.Add(healthSpan)); asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// While 256 requests ask workers, a further one gets 503 and a time to wait; one that asks none is served.
func TestAsksAreBounded(t *testing.T) {
	w := start(t)
	for range asksMax {
		w.api.asks <- struct{}{}
	}
	r := w.request(http.MethodPost, "/v1/publish", `{"connection":"x","message":{"type":"x"},"count":true}`)
	if p := w.refused(r, overloaded); !strings.Contains(p.Detail, "256") {
		t.Error(p.Detail)
	}
	w.post("/v1/publish", `{"connection":"x","message":{"type":"x"}}`)
	<-w.api.asks
	w.post("/v1/publish", `{"connection":"x","message":{"type":"x"},"count":true}`)
}

// Header fields over 16 KiB are refused; those below are read.
func TestLargeHeads(t *testing.T) {
	w := start(t)
	for padding, status := range map[int]int{15 << 10: 200, 17 << 10: 431} {
		conn, in := w.raw()
		fmt.Fprintf(conn, "GET /v1/health HTTP/1.1\r\nHost: x\r\nPadding: %s\r\n\r\n", strings.Repeat("x", padding))
		resp, err := http.ReadResponse(in, nil)
		if err != nil || resp.StatusCode != status {
			t.Errorf("%d bytes: %v %v", padding, resp, err)
		}
	}
}

// A head that comes too slowly, and an offer of HTTP/2, end the connection without an effect.
func TestBrokenHeads(t *testing.T) {
	w := startWith(t, func(s *Server) { s.http.ReadHeaderTimeout = time.Second })
	for name, text := range map[string]string{"slow": "POST /v1/publish HTTP/1.1\r\nHost: x\r\n", "HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "no HTTP": "\x16\x03\x01\x02\x00\x01\r\n\r\n"} {
		conn, in := w.raw()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		for err := error(nil); err == nil; {
			var line string
			if line, err = in.ReadString('\n'); strings.HasPrefix(line, "HTTP/1.1 2") {
				t.Errorf("%s: %s", name, line)
			}
			if err != nil && err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// A client that asks and does not read loses its connection; others are served meanwhile.
func TestSlowReaders(t *testing.T) {
	var ended sync.Map
	w := startWith(t, func(s *Server) {
		s.http.WriteTimeout = time.Second
		s.http.ConnState = func(c net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				ended.Store(c.RemoteAddr().String(), true)
			}
		}
	})
	conn, _ := w.raw()
	wrote := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, strings.Repeat("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", 1000))
		wrote <- err
	}()
	eventually(t, "the server gives the connection up", func() bool {
		w.post("/v1/publish", `{"room":"a","data":1}`)
		_, gone := ended.Load(conn.LocalAddr().String())
		return gone
	})
	<-wrote
}

// An upgrade to HTTP/2 is not taken: the answer comes in HTTP/1.1.
func TestNoUpgrade(t *testing.T) {
	w := start(t)
	conn, in := w.raw()
	fmt.Fprint(conn, "GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n")
	if resp, err := http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 || resp.ProtoMajor != 1 {
		t.Errorf("%v %v", resp, err)
	}
}

// A shutdown lets the request that is under way end, and takes no new one.
func TestShutdownWaits(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	w := startWith(t, func(s *Server) {
		s.routes["/v1/publish"].run = func(*Server, *call) ([]byte, *problem) {
			entered <- true
			<-leave
			return []byte("{}"), nil
		}
	})
	conn, in := w.raw()
	const body = `{"room":"a","data":1}`
	if _, err := io.WriteString(conn, w.head(len(body))+body); err != nil {
		t.Fatal(err)
	}
	<-entered
	ended := make(chan error)
	go func() { ended <- w.api.Shutdown(context.Background()) }()
	eventually(t, "no new connection is taken", func() bool {
		late, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + w.addr + "/v1/health")
		if err == nil {
			late.Body.Close()
		}
		return err != nil
	})
	leave <- true
	if resp, got := w.readAnswer(in, body); resp.StatusCode != 200 || got != "{}" {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A shutdown whose time is over cuts requests off.
func TestShutdownCuts(t *testing.T) {
	entered, leave := make(chan bool), make(chan bool)
	w := startWith(t, func(s *Server) {
		s.routes["/v1/health"].run = func(*Server, *call) ([]byte, *problem) {
			entered <- true
			<-leave
			return []byte("{}"), nil
		}
	})
	conn, _ := w.raw()
	if _, err := io.WriteString(conn, "GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := w.api.Shutdown(ctx); err == nil {
		t.Error("the shutdown says that all is well")
	}
	if _, err := bufio.NewReader(conn).ReadByte(); err == nil {
		t.Error("the connection goes on")
	}
	leave <- true
}
