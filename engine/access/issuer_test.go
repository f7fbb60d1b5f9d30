package access

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

const patient = 30 * time.Second

// handClock is a clock that stands until a test turns it.
type handClock struct {
	mu     sync.Mutex
	at     time.Time
	timers map[chan time.Time]time.Time
}

func (c *handClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *handClock) timer(d time.Duration) (<-chan time.Time, func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := make(chan time.Time, 1)
	c.timers[due] = c.at.Add(d)
	return due, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		_, waits := c.timers[due]
		delete(c.timers, due)
		return waits
	}
}

func (c *handClock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	for due, at := range c.timers {
		if !at.After(c.at) {
			delete(c.timers, due)
			due <- c.at
		}
	}
}

// issuer is a real server of keys, whose answer a test changes.
type issuer struct {
	*httptest.Server
	t      testing.TB
	asked  atomic.Int64
	answer atomic.Pointer[http.HandlerFunc]
	clock  *handClock
	keys   *KeyURL
	v      *Verifier
}

func handler(text string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i+1 < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		io.WriteString(w, text)
	}
}

func (i *issuer) say(h http.HandlerFunc) { i.answer.Store(&h) }

// serve starts an issuer with an answer, and a verifier that reads it.
func serve(t testing.TB, first http.HandlerFunc) *issuer {
	t.Helper()
	return serveWithin(t, patient, first)
}

// serveWithin is serve, with a time within which each answer must be there.
func serveWithin(t testing.TB, wait time.Duration, first http.HandlerFunc) *issuer {
	t.Helper()
	i := &issuer{t: t, clock: &handClock{at: moment, timers: map[chan time.Time]time.Time{}}}
	i.say(first)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.asked.Add(1)
		(*i.answer.Load())(w, r)
	}))
	t.Cleanup(i.Server.Close)
	keys, err := openKeyURL(i.URL+"/keys", nil, clock{i.clock.now, i.clock.timer, wait})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	i.keys, i.v = keys, verifier(t, Options{URL: keys, Audience: "chat"})
	i.read(1)
	return i
}

// poll waits until a condition holds.
func (i *issuer) poll(what string, f func() bool) {
	i.t.Helper()
	if !canary.Wait(patient, f) {
		i.t.Fatalf("%s: it did not happen; %+v", what, i.keys.Reads())
	}
}

// read waits until so many readings have ended and the next timer runs.
func (i *issuer) read(n uint64) {
	i.t.Helper()
	i.poll(fmt.Sprintf("%d readings", n), func() bool {
		i.clock.mu.Lock()
		defer i.clock.mu.Unlock()
		return i.keys.Reads().Readings == n && len(i.clock.timers) == 1
	})
}

func (i *issuer) verify(token string) error {
	_, err := i.v.Verify(token, i.clock.now())
	return err
}

// refusal wants an error of a kind.
func refusal(t testing.TB, err error, want Refusal) {
	t.Helper()
	var refused *TokenError
	if !errors.As(err, &refused) || refused.Refusal != want {
		t.Errorf("%v, want %s", err, want.Code())
	}
}

// ec signs a token that is good for a day with a P-256 key.
func ec(t testing.TB, name, kid string) string {
	return sign(t, "ES256", pairs()[name], kid, fmt.Sprintf(`{"sub":"42","exp":%d,"aud":"chat"}`, moment.Unix()+1_000_000))
}
