package admin

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine"
)

// failing is a source that panics once bad is set.
type failing struct{ bad bool }

func (f *failing) Stats() engine.Stats {
	if f.bad {
		panic("bad stats")
	}
	return engine.Stats{Workers: make([]engine.WorkerStats, 1)}
}
func (f *failing) Healthy(context.Context) error { panic("bad health") }
func (f *failing) Ready(context.Context) error   { panic("bad readiness") }
func (f *failing) Degraded() string              { return "" }
func (f *failing) Addr() net.Addr                { panic("bad address") }

// A panic behind a page costs its request only, and is logged as an error.
func TestPanicBehindAPage(t *testing.T) {
	for _, path := range []string{"/healthz", "/readyz", "/stats", "/metrics", "/server.json"} {
		var log bytes.Buffer
		f := &failing{}
		h := (&Admin{srv: f, log: slog.New(slog.NewTextHandler(&log, nil))}).handler()
		f.bad = true
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != http.StatusInternalServerError {
			t.Errorf("%s is answered with %d", path, w.Code)
		}
		if text := log.String(); !strings.Contains(text, "level=ERROR") || !strings.Contains(text, "bad ") {
			t.Errorf("%s: the log says %q", path, text)
		}
	}
}
