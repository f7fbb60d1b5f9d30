package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// holder is a client that came with a token.
type holder struct {
	conn net.Conn
	in   io.Reader
}

func (r *running) dialToken(token string) (*holder, error) {
	r.t.Helper()
	d := ws.Dialer{Timeout: patient, Header: ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + token}})}
	conn, in, _, err := d.Dial(r.t.Context(), "ws://"+r.ws+"/")
	if err != nil {
		return nil, err
	}
	r.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patient))
	h := &holder{conn, conn}
	if in != nil {
		h.in = in
	}
	return h, nil
}

// next is the type of the next message, or the close code.
func (h *holder) next() (string, ws.StatusCode, error) {
	text, err := wsutil.ReadServerText(struct {
		io.Reader
		io.Writer
	}{h.in, h.conn})
	var closed wsutil.ClosedError
	if errors.As(err, &closed) {
		return "", closed.Code, nil
	}
	return string(text), 0, err
}

// refuses reports whether the server takes newcomers with a token no more: none of 20, which reach all workers.
func (r *running) refuses(token string) bool {
	r.t.Helper()
	for range 20 {
		h, err := r.dialToken(token)
		if err == nil {
			var code ws.StatusCode
			_, code, err = h.next()
			h.conn.Close()
			if err == nil && code != engine.StatusUnauthorized {
				return false
			}
		}
		if err != nil && !errors.Is(err, syscall.ECONNRESET) { // the kernel resets what waits in the queue of a killed worker
			r.t.Fatal(err)
		}
	}
	return true
}

// A revocation ends the connections of all workers and refuses newcomers on all; workers and api processes that start later know it,
// and with data_dir a server that starts later.
func TestRevokeOverWorkers(t *testing.T) {
	secret := secretFile(t)
	token, other := makeToken(t, secret, "--user", "ann"), makeToken(t, secret, "--user", "bob")
	flags := []string{"--auth", "required", "--jwt-secret-file", secret, "--data-dir", t.TempDir()}
	r, b, _ := serveAPI(t, "3", flags...)
	var list []*holder
	for range 12 {
		h, err := r.dialToken(token)
		if err != nil {
			t.Fatal(err)
		}
		if text, _, err := h.next(); !strings.Contains(text, `"connected"`) {
			t.Fatal(text, err)
		}
		list = append(list, h)
	}
	if got := b.must("/v1/tokens/revoke", `{"user":"ann"}`); got != `{"closed":12}` {
		t.Error(got)
	}
	for _, h := range list {
		for {
			_, code, err := h.next()
			if err != nil || code != 0 && code != engine.StatusUnauthorized {
				t.Fatal(code, err)
			}
			if code != 0 {
				h.conn.Close()
				break
			}
		}
	}
	if !r.refuses(token) || r.refuses(other) {
		t.Error("the wrong token is refused")
	}
	for range 3 {
		r.signalRole("worker", syscall.SIGKILL)
	}
	r.signalRole("api", syscall.SIGKILL)
	r.eventually("all workers are there again", func() bool { return len(r.readyWorkers()) == 3 })
	if !r.refuses(token) {
		t.Error("a worker that started later takes the token")
	}
	if got := b.lines("/v1/tokens/revoke"); len(got) != 2 || !strings.HasPrefix(got[0], `{"user":"ann"`) {
		t.Errorf("%q", got)
	}
	r.stops()

	r, b, _ = serveAPI(t, "3", flags...)
	if !r.refuses(token) {
		t.Error("the revocation is lost over a restart")
	}
	b.must("/v1/tokens/unrevoke", `{"user":"ann"}`)
	r.eventually("the token is good again", func() bool {
		h, err := r.dialToken(token)
		if err != nil {
			return false
		}
		defer h.conn.Close()
		text, _, _ := h.next()
		return strings.Contains(text, `"connected"`)
	})
	r.stops()
}
