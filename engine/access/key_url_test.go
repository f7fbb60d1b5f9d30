package access

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// Keys are read at the start, and again when their max-age is over and not before.
func TestKeyURLReads(t *testing.T) {
	for cacheControl, age := range map[string]time.Duration{"max-age=600": 10 * time.Minute, "": time.Hour} {
		i := serve(t, handler(jwks(jwk(t, "P-256", "a", "")), "Cache-Control", cacheControl))
		if err := i.verify(ec(t, "P-256", "a")); err != nil || !i.keys.Ready() {
			t.Errorf("%v, ready: %v", err, i.keys.Ready())
		}
		i.clock.turn(age - time.Second)
		if got := i.keys.Age(); got != age-time.Second || i.asked.Load() != 1 {
			t.Errorf("age %v after %d requests", got, i.asked.Load())
		}
		i.clock.turn(time.Second)
		i.read(2)
		if got := i.keys.Age(); got != 0 || i.asked.Load() != 2 {
			t.Errorf("age %v after %d requests", got, i.asked.Load())
		}
	}
}

// Callers with unknown kids wait for one reading, which begins ten seconds after the one before.
func TestKeyURLStorm(t *testing.T) {
	i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
	storm := func(n int) chan error {
		answers := make(chan error, n)
		for k := range n {
			token := ec(t, "P-256 other", fmt.Sprint("unknown ", k))
			refusal(t, i.verify(token), KeyUnknown)
			go func() {
				_, err := i.v.VerifyWait(t.Context(), token, i.clock.now())
				answers <- err
			}()
		}
		i.poll("all wait", func() bool {
			i.keys.mu.Lock()
			defer i.keys.mu.Unlock()
			return i.keys.waiting == n
		})
		return answers
	}
	for round := range uint64(3) {
		answers := storm(100)
		i.clock.turn(readPause - time.Millisecond)
		if n := i.keys.Reads().Readings; n != round+1 {
			t.Errorf("%d readings before the pause was over", n)
		}
		if err := i.verify(ec(t, "P-256", "a")); err != nil {
			t.Errorf("a good token in the storm: %v", err)
		}
		i.clock.turn(time.Millisecond)
		for range 100 {
			refusal(t, <-answers, Unauthorized)
		}
		i.read(round + 2)
	}
	i.clock.mu.Lock()
	defer i.clock.mu.Unlock()
	for _, next := range i.clock.timers {
		if pause := next.Sub(i.clock.at); pause != maxAgeDefault {
			t.Errorf("the next reading is %v after the storm, which is over", pause)
		}
	}
	if n := i.asked.Load(); n != 4 {
		t.Errorf("%d requests, want 4", n)
	}
}

// A token that no key could make good asks for no reading, nor does one with a wrong signature under a known kid.
func TestKeyURLIsNotAskedInVain(t *testing.T) {
	i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
	for _, token := range []string{
		ec(t, "P-256 other", "a"),
		sign(t, "ES256", pairs()["P-256"], "b", `{"sub":"42","exp":1,"aud":"chat"}`),
		sign(t, "ES256", pairs()["P-256"], "b", `{"sub":"42","exp":4000000000,"aud":"other"}`),
		sign(t, "ES384", pairs()["P-384"], "b", claimsAt("")),
		"a.b.c",
	} {
		if _, err := i.v.VerifyWait(t.Context(), token, i.clock.now()); err == nil {
			t.Errorf("%.40s is good", token)
		}
	}
	i.keys.mu.Lock()
	wanted := i.keys.wanted
	i.keys.mu.Unlock()
	if n := i.keys.Reads().Readings; n != 1 || wanted {
		t.Errorf("%d readings, another wanted: %v", n, wanted)
	}
}

// The issuer changes its key again and again, with the old one still in the set, while strangers send unknown kids: no good
// token is refused, and a key that has left the set is good no more.
func TestKeyURLRotation(t *testing.T) {
	names := []string{"P-256", "P-256 other"}
	i := serve(t, handler(jwks(jwk(t, names[0], "0", ""))))
	readings := uint64(1)
	for n := 1; n <= 10; n++ {
		last, next := names[(n+1)%2], names[n%2]
		i.say(handler(jwks(jwk(t, last, fmt.Sprint(n-1), ""), jwk(t, next, fmt.Sprint(n), ""))))
		answers := make(chan error, 20)
		for k := range 20 {
			token := ec(t, last, fmt.Sprint(n-1))
			if k%2 == 0 {
				token = ec(t, next, fmt.Sprint(n))
			}
			go func() {
				go i.v.VerifyWait(t.Context(), ec(t, "P-256", "stranger"), i.clock.now())
				_, err := i.v.VerifyWait(t.Context(), token, i.clock.now())
				answers <- err
			}()
		}
		i.poll("the pause", func() bool {
			i.clock.turn(time.Second)
			return len(answers) == 20
		})
		for range 20 {
			if err := <-answers; err != nil {
				t.Errorf("change %d: %v", n, err)
			}
		}
		i.poll("strangers are gone", func() bool {
			i.clock.turn(time.Second)
			i.keys.mu.Lock()
			defer i.keys.mu.Unlock()
			return i.keys.waiting == 0
		})
		if now := i.keys.Reads().Readings; now == readings {
			t.Errorf("change %d: no reading", n)
		} else {
			readings = now
		}
		if n > 1 {
			refusal(t, i.verify(ec(t, next, fmt.Sprint(n-2))), KeyUnknown)
		}
	}
}

// The kid may be missing: a token that no key verifies waits for the next set as one with an unknown kid does.
func TestKeyURLWithoutKid(t *testing.T) {
	i := serve(t, handler(jwks(jwk(t, "P-256", "", ""))))
	if err := i.verify(ec(t, "P-256", "")); err != nil {
		t.Error(err)
	}
	i.say(handler(jwks(jwk(t, "P-256 other", "", ""))))
	answer := make(chan error, 1)
	go func() {
		_, err := i.v.VerifyWait(t.Context(), ec(t, "P-256 other", ""), i.clock.now())
		answer <- err
	}()
	i.poll("the answer", func() bool {
		i.clock.turn(time.Second)
		return len(answer) == 1
	})
	if err := <-answer; err != nil {
		t.Error(err)
	}
	refusal(t, i.verify(ec(t, "P-256", "")), KeyUnknown)
}

// Answers that are no set leave the last good set in force, and are said.
func TestKeyURLBadAnswers(t *testing.T) {
	elsewhere := serve(t, handler(jwks(jwk(t, "P-256 other", "b", ""))))
	var packed strings.Builder
	z := gzip.NewWriter(&packed)
	z.Write([]byte("{"))
	z.Write(make([]byte, 8<<20))
	z.Close()
	bomb := handler(packed.String(), "Content-Encoding", "gzip")
	endless := func(w http.ResponseWriter, r *http.Request) {
		for io.WriteString(w, "{"); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, strings.Repeat(" ", 64<<10)); err != nil {
				return
			}
		}
	}
	good := jwk(t, "P-256 other", "b", "")
	for want, answer := range map[string]http.HandlerFunc{
		"answer is 302":     http.RedirectHandler(elsewhere.URL, http.StatusFound).ServeHTTP,
		"answer is 307":     http.RedirectHandler("/other", http.StatusTemporaryRedirect).ServeHTTP,
		"answer is 404":     http.NotFound,
		"answer is 204":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"not a JWK set":     handler(""),
		"is not a JWK set":  handler(string(publicPEM(t, "P-256 other"))),
		"the answer is not": handler("<html>"),
		"not valid JSON":    handler(jwks(good) + "x"),
		"is not valid":      handler(jwks(good)[:100]),
		"no list":           handler(`{"keys":null}`),
		"private":           handler(jwks(good, privateJWK(t, pairs()["RSA"]))),
		"101 keys":          handler(jwks(slices.Repeat([]string{good}, 101)...)),
		"more than 1048576": handler(jwks(good) + strings.Repeat(" ", keysBytesMax)),
		"more than 10485":   endless,
		"than 1048576":      bomb,
		"EOF":               func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) },
		"headers":           handler(jwks(good), "X", strings.Repeat("x", 1<<20)),
		"unexpected EOF":    handler(jwks(good), "Content-Length", "100000"),
	} {
		t.Run(want, func(t *testing.T) {
			i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
			i.say(answer)
			i.clock.turn(maxAgeDefault)
			i.read(2)
			if r := i.keys.Reads(); r.Failures != 1 || r.Err == nil || !strings.Contains(r.Err.Error(), want) || r.Keys != 1 {
				t.Errorf("%+v", r)
			}
			if err := i.verify(ec(t, "P-256", "a")); err != nil || i.keys.Age() != maxAgeDefault {
				t.Errorf("%v, age %v", err, i.keys.Age())
			}
			refusal(t, i.verify(ec(t, "P-256 other", "b")), KeyUnknown)
		})
	}
	if n := elsewhere.asked.Load(); n != 1 {
		t.Errorf("a redirect was followed: %d requests", n)
	}
}

// A server that is slow costs five seconds, and callers that wait get unavailable.
func TestKeyURLSlow(t *testing.T) {
	t.Parallel()
	i := serveWithin(t, readWait, handler(jwks(jwk(t, "P-256", "a", ""))))
	i.say(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "{")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	answer := make(chan error, 1)
	go func() {
		_, err := i.v.VerifyWait(t.Context(), ec(t, "P-256 other", "b"), i.clock.now())
		answer <- err
	}()
	i.poll("the caller waits", func() bool {
		i.keys.mu.Lock()
		defer i.keys.mu.Unlock()
		return i.keys.waiting == 1
	})
	i.clock.turn(readPause)
	began := time.Now()
	refusal(t, <-answer, Unavailable)
	if took := time.Since(began); took < readWait/2 {
		t.Errorf("it gave up after %v", took)
	}
	if err := i.verify(ec(t, "P-256", "a")); err != nil {
		t.Error(err)
	}
}

// The last good set serves for a day while the URL is away, then none does; readings that fail are repeated, less and less
// often; when the URL is back, all is well.
func TestKeyURLAway(t *testing.T) {
	i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
	i.say(http.NotFound)
	good := ec(t, "P-256", "a")
	i.clock.turn(maxAgeDefault)
	i.read(2)
	for n, pause := range []time.Duration{10, 20, 40, 60, 60, 60} {
		i.clock.turn(pause*time.Second - 1)
		if r := i.keys.Reads().Readings; r != uint64(n)+2 {
			t.Errorf("%d readings before the pause of %d s was over", r, pause)
		}
		i.clock.turn(1)
		i.read(uint64(n) + 3)
	}
	i.clock.turn(servesAway - i.keys.Age() - time.Second)
	if err := i.verify(good); err != nil || !i.keys.Ready() {
		t.Errorf("after a day without a second: %v", err)
	}
	i.clock.turn(time.Second)
	refusal(t, i.verify(good), Unavailable)
	if i.keys.Ready() || i.keys.Age() < servesAway {
		t.Errorf("ready at the age of %v", i.keys.Age())
	}
	i.say(handler(jwks(jwk(t, "P-256", "a", ""))))
	i.poll("the URL is back", func() bool {
		i.clock.turn(time.Second)
		return i.keys.Ready()
	})
	if err := i.verify(good); err != nil {
		t.Error(err)
	}
}

// Until the first set is there, nothing is ready and no token is judged.
func TestKeyURLNotReady(t *testing.T) {
	i := serve(t, http.NotFound)
	refusal(t, i.verify(ec(t, "P-256", "a")), Unavailable)
	_, err := i.v.VerifyWait(t.Context(), ec(t, "P-256", "a"), i.clock.now())
	refusal(t, err, Unavailable)
	if i.keys.Ready() || i.keys.Age() != 0 || !strings.Contains(i.keys.Missing(), "the answer is 404") {
		t.Errorf("without keys it is ready, or says %q", i.keys.Missing())
	}
	i.clock.turn(time.Second)
	if i.keys.Age() != time.Second {
		t.Errorf("a second after the opening its age is %v", i.keys.Age())
	}
	i.say(handler(jwks()))
	i.clock.turn(readPause)
	i.read(2)
	if !i.keys.Ready() {
		t.Error("an empty set, with which an issuer withdraws all keys, is a set")
	}
	refusal(t, i.verify(ec(t, "P-256", "a")), KeyUnknown)
}

// A caller waits no longer than its context, and no more of them wait than the bound says; Close ends them all.
func TestKeyURLWaiters(t *testing.T) {
	i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
	unknown := ec(t, "P-256", "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := i.v.VerifyWait(ctx, unknown, i.clock.now())
	refusal(t, err, Unavailable)
	i.keys.mu.Lock()
	i.keys.waiting += waitersMax
	i.keys.mu.Unlock()
	_, err = i.v.VerifyWait(t.Context(), unknown, i.clock.now())
	refusal(t, err, Unavailable)
	if !strings.Contains(err.Error(), "too many") {
		t.Error(err)
	}
	i.keys.mu.Lock()
	i.keys.waiting -= waitersMax
	i.keys.mu.Unlock()
	answer := make(chan error, 1)
	go func() {
		_, err := i.v.VerifyWait(t.Context(), unknown, i.clock.now())
		answer <- err
	}()
	i.poll("the caller waits", func() bool {
		i.keys.mu.Lock()
		defer i.keys.mu.Unlock()
		return i.keys.waiting == 1
	})
	i.keys.Close()
	refusal(t, <-answer, Unavailable)
	i.keys.Close()
}

// Only https, or http of this machine, without a user, is an address of keys; a certificate that is not trusted is an error.
func TestKeyURLAddresses(t *testing.T) {
	for _, bad := range []string{"", "x", "http://", "http://example.com/k", "http://192.0.2.1/k", "http://localhost.example.com/k", "http://127.0.0.1.example.com/k",
		"ftp://localhost/k", "file:///etc/k", "https:k", "https://u:p@example.com/k", "https://example.com/k#f", "http://[::2]/k", "https://%zz", "//example.com/k"} {
		if k, err := OpenKeyURL(bad); err == nil {
			k.Close()
			t.Errorf("%q was taken", bad)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("the password is in %v", err)
		}
	}
	for _, good := range []string{"https://example.com/k", "http://localhost:1/k", "http://127.0.0.1/k", "http://127.9.9.9/k", "http://[::1]:8080/k?x=y"} {
		if err := CheckKeyURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	server := httptest.NewTLSServer(handler(jwks(jwk(t, "P-256", "a", ""))))
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	for trust, ready := range map[*tls.Config]bool{{RootCAs: pool}: true, nil: false} {
		k, err := openKeyURL(server.URL, trust, realClock())
		if err != nil {
			t.Fatal(err)
		}
		if !canary.Wait(patient, func() bool { return k.Reads().Readings == 1 }) || k.Ready() != ready {
			t.Errorf("ready: %v, %+v", k.Ready(), k.Reads())
		}
		k.Close()
	}
}

// The age of an answer is kept within the bounds [RFC 9111 §5.2.2.1].
func TestMaxAge(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"": time.Hour, "no-store": time.Hour, "max-age": time.Hour, "max-age=": time.Hour, "max-age=-1": time.Hour, "max-age=x": time.Hour, "s-maxage=600": time.Hour,
		"max-age=0": 5 * time.Minute, "max-age=299": 5 * time.Minute, "max-age=301": 301 * time.Second, "public, MAX-AGE=600, x": 10 * time.Minute, `max-age="600"`: 10 * time.Minute,
		"max-age=86400": 24 * time.Hour, "max-age=86401": 24 * time.Hour, "max-age=99999999999999999999999": 24 * time.Hour, "max-age=18446744073709551615": 24 * time.Hour,
	} {
		if got := maxAge(http.Header{"Cache-Control": {text}}); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}
