package api

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/parleyd/parley/engine"
)

// Operator shows the server's processes, and drains workers. Its methods may block; any goroutine.
type Operator interface {
	Processes(ctx context.Context) (engine.Processes, error)
	// Drain returns once the worker has been told. Errors: [engine.ErrWorkerUnknown]; others say why it cannot be done now.
	Drain(ctx context.Context, worker int, over time.Duration) error
}

// places are the indexes of workers by their instances, which are all that an engine knows.
//
// Owner: shared (mutex: mu).
type places struct {
	mu    sync.Mutex
	known map[uint16]*int
	asked time.Time
}

const (
	placesEvery = 250 * time.Millisecond // at most so often is the operator asked
	placesWait  = time.Second
	placesMax   = 4096 // older ones than the present are forgotten then
)

// of is the index of a worker; nil if the operator does not know it, or does not answer.
func (p *places) of(operator Operator, instance uint16) *int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if index := p.known[instance]; index != nil || time.Since(p.asked) < placesEvery {
		return index
	}
	ctx, cancel := context.WithTimeout(context.Background(), placesWait)
	defer cancel()
	all, err := operator.Processes(ctx)
	p.asked = time.Now() // after the answer: a list asks for each of its rows, and must wait for a silent operator once
	if err != nil {
		return nil
	}
	if p.known == nil || len(p.known) > placesMax {
		p.known = map[uint16]*int{}
	}
	for _, w := range all.Workers {
		p.known[w.Instance] = &w.Index
	}
	return p.known[instance]
}

// workers lists the server's processes.
func workers(s *Server, _ *call, _ *readRequest, ctx context.Context) (any, error) {
	all, err := s.operator.Processes(ctx)
	if err != nil {
		return nil, err
	}
	return &all, nil
}

// drainRequest is the body of /v1/drain.
//
// Owner: one goroutine.
type drainRequest struct {
	worker int
	within time.Duration
}

const (
	drainUsual = 30 * time.Second
	drainMax   = time.Hour
)

var drainFields = fields[drainRequest]{
	{"worker", func(r *drainRequest, v []byte) string {
		n, err := strconv.ParseInt(string(v), 10, 32)
		if r.worker = int(n); err != nil || n < 0 {
			return "give the index of a worker: 0, 1, 2 ..."
		}
		return ""
	}},
	{"within", func(r *drainRequest, v []byte) string {
		var text string
		wrong := takeText(&text, v)
		var err error
		if r.within, err = time.ParseDuration(text); wrong == "" && (err != nil || r.within < 0 || r.within > drainMax) {
			wrong = "give a time from 0s to 1h, as a text: \"30s\""
		}
		return wrong
	}},
}

// drain tells a worker to send its clients away, and answers when it has been told. The list of workers shows how far it is.
func drain(s *Server, c *call) ([]byte, *problem) {
	r := drainRequest{worker: -1, within: drainUsual}
	if wrong := drainFields.decode(c.object, &r); wrong != nil {
		return nil, wrong
	}
	if r.worker < 0 {
		return nil, invalid([]fault{{c.at + "/worker", "name the worker by its index: 0, 1, 2 ..."}})
	}
	if wrong := c.key.addressesAll("workers"); wrong != nil {
		return nil, wrong
	}
	var refused *problem
	if wrong := s.ask(c, func(ctx context.Context) error {
		err := s.operator.Drain(ctx, r.worker, r.within)
		switch {
		case errors.Is(err, engine.ErrWorkerUnknown):
			refused = &problem{code: notFound, detail: "worker: " + err.Error()}
		case err != nil:
			refused = &problem{code: unavailable, detail: err.Error()}
		}
		return nil
	}); wrong != nil {
		return nil, wrong
	}
	return []byte("{}"), refused
}
