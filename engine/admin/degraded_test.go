package admin_test

import (
	"net/http"
	"testing"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/session"
)

// unkept is a store that cannot keep sessions at the moment.
type unkept struct{ session.Store }

func (unkept) Why() string { return "what was stored is being written anew" }

// A server that serves and cannot keep sessions is healthy, and says what does not work.
func TestHealthDegraded(t *testing.T) {
	w := start(t, func(s *engine.Server) { s.Worker().Sessions.KeepSessions(unkept{}) })
	resp, body := w.do(http.MethodGet, "/healthz")
	if resp.StatusCode != http.StatusOK || body != "degraded: sessions cannot be kept: what was stored is being written anew\n" {
		t.Errorf("%s: %q", resp.Status, body)
	}
}
