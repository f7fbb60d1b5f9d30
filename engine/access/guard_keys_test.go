package access

import (
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// today starts an issuer with one key, a, whose clock stands at the present.
func today(t *testing.T) *issuer {
	t.Helper()
	i := serve(t, handler(jwks(jwk(t, "P-256", "a", ""))))
	i.clock.turn(time.Since(i.clock.now()))
	i.read(2)
	return i
}

func (i *issuer) waiting() int {
	i.keys.mu.Lock()
	defer i.keys.mu.Unlock()
	return i.keys.waiting
}

// runs reports whether a timer waits.
func (c *handClock) runs() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.timers) > 0
}

const todayClaims = `{"sub":"42","exp":4000000000,"aud":"chat"}`

// Strangers whose tokens name unknown keys do not keep out clients whose tokens can be verified at once, and those that are too
// many are told when to come again.
func TestUnknownKeysLeaveRoom(t *testing.T) {
	i := today(t)
	h := guarded(t, GuardOptions{Auth: Required, Verifier: i.v})
	unknown := sign(t, "ES256", pairs()["P-256 other"], "b", todayClaims)
	var last net.Conn
	for range 40 {
		conn, err := net.Dial("tcp", h.srv.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer "+unknown+"\r\n\r\n")
		last = conn
	}
	i.poll("strangers wait", func() bool { return i.waiting() >= 2 })
	h.dial(withHeader("Authorization", "Bearer "+sign(t, "ES256", pairs()["P-256"], "a", todayClaims)), "").expect("connected")
	if n := i.waiting(); n != 2 {
		t.Errorf("%d strangers wait on 4 goroutines", n)
	}
	last.SetDeadline(time.Now().Add(canary.Stretch(patient)))
	if answer, err := io.ReadAll(last); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503") || !strings.Contains(string(answer), "\r\nRetry-After: ") {
		t.Errorf("%s %v", answer, err)
	}
	if verifyWait < readPause+readWait {
		t.Error("a token of a new key is refused before the key can have been read")
	}
}

// A token of a key that cannot be read now may be good: the client is not told to stay away, and learns nothing of our hosts.
func TestKeysAwayByMessage(t *testing.T) {
	i := today(t)
	h := guarded(t, GuardOptions{Auth: Required, Verifier: i.v})
	in := h.dial(withHeader("Authorization", "Bearer "+sign(t, "ES256", pairs()["P-256"], "a", todayClaims)), "")
	in.expect("connected")
	i.say(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	ask := `{"type":"auth","token":"` + sign(t, "ES256", pairs()["P-256 other"], "b", todayClaims) + `"}`
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		for ctx.Err() == nil { // let each token that waits have its reading
			if i.waiting() > 0 && i.clock.runs() {
				i.clock.turn(readPause)
			}
			runtime.Gosched()
		}
	}()
	for n := range 4 { // more than bad tokens in a row end a connection
		m := in.exchange(ask, "error", "unavailable")
		if text := m["message"].(string); strings.Contains(text, "http") || strings.Contains(text, "read keys") {
			t.Errorf("%d: %s", n, text)
		}
	}
	in.exchange(`{"type":"ping"}`, "pong", "")
	late := h.dial(ws.Dialer{}, "")
	late.expect("connected")
	late.exchange(ask, "error", "unavailable")
	late.expect("goodbye")
	if code := late.closed(); code != engine.StatusTryAgain {
		t.Error(code)
	}
}
