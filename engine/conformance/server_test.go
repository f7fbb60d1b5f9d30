package conformance_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// historicServer is a server with two loops whose rooms have a history.
func historicServer(t *testing.T, history string) *engine.Server {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Port, cfg.Loops, cfg.History, cfg.ReceiptInterval = -1, 2, []string{history}, 20*time.Millisecond
	srv, err := engine.New(cfg, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(30*time.Second))
		defer cancel()
		srv.Shutdown(ctx)
	})
	return srv
}

// topOf is the number of the newest message.
func topOf(t *testing.T, srv *engine.Server) uint64 {
	t.Helper()
	page, err := srv.History(t.Context(), "chat", engine.HistoryQuery{Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	return page.Top
}
