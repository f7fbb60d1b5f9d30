package api

import (
	"context"
	"sync"
	"time"
)

const (
	healthSpan    = time.Second // an answer counts for so long: the path needs no key, and a question disturbs every loop
	healthTimeout = 2 * time.Second
)

// healthMemory is the last answer about the engine's health.
//
// Owner: shared (mutex: mu).
type healthMemory struct {
	mu    sync.Mutex
	asked time.Time
	err   error
}

// ask asks the engine, or tells what it said just now. While one request asks, others wait for its answer.
func (m *healthMemory) ask(healthy func(context.Context) error, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked.IsZero() || now.Sub(m.asked) >= healthSpan {
		ctx, cancel := context.WithTimeout(context.Background(), healthTimeout)
		defer cancel()
		m.err = healthy(ctx)
		m.asked = now
	}
	return m.err
}

// health says whether every loop takes turns. It gives no details to those without a key.
func health(s *Server, c *call) ([]byte, *problem) {
	if s.health.ask(s.engine.Healthy, c.now) != nil {
		return nil, &problem{code: unavailable}
	}
	return []byte(`{"status":"ok"}`), nil
}
