package engine

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
)

// tuned is the part of the configuration that may change while the server runs, as the loops read it: whole, or not at
// all.
//
// Owner: immutable.
type tuned struct {
	cfg         Config // all of it, with what was changed
	announceMax int
	interval    int64 // heartbeats, in nanoseconds
	timeout     int64
	origins     *handshake.Origins
}

// tunable are the keys of what may change. Everything else has been built into something by the time the server runs.
var tunable = []string{"announce_members_max", "heartbeat_interval", "heartbeat_timeout", "origins"}

func newTuned(cfg Config) (*tuned, error) {
	origins, err := handshake.NewOrigins(cfg.Origins)
	if err != nil {
		return nil, &ConfigError{Key: "origins", Hint: err.Error()}
	}
	return &tuned{cfg: cfg, announceMax: cfg.AnnounceMembersMax, interval: int64(cfg.HeartbeatInterval),
		timeout: int64(cfg.HeartbeatTimeout), origins: origins}, nil
}

// Config is the configuration that is in force, with its defaults filled in; it is the caller's to change. Any goroutine.
func (s *Server) Config() Config { return s.tuned.Load().cfg.clone() }

// Reload brings into force what cfg changes of announce_members_max, heartbeat_interval, heartbeat_timeout and origins,
// all of it at once, and returns the keys of the other settings that differ: those need a new process.
// Origins that are empty where a list was in force are refused, since what lost the list was more likely a mistake than
// the wish to admit every page: that wish is "*". New origins are for those who come from then on; new heartbeats are for everybody, from the next one on. Any
// goroutine; each loop looks at its connections once, which takes some 10 ms for 100,000. The error, a *[ConfigError],
// leaves everything as it was.
//
// Scope: this worker.
func (s *Server) Reload(cfg Config) (fixed []string, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Config()
	into, from := reflect.ValueOf(&now).Elem(), reflect.ValueOf(cfg)
	for i := range into.NumField() {
		if key := into.Type().Field(i).Tag.Get("key"); slices.Contains(tunable, key) {
			into.Field(i).Set(from.Field(i))
		} else if !reflect.DeepEqual(into.Field(i).Interface(), from.Field(i).Interface()) && key != "-" {
			fixed = append(fixed, key)
		}
	}
	if was := s.Config(); len(now.Origins) == 0 && len(was.Origins) > 0 && !slices.Contains(was.Origins, "*") {
		return nil, &ConfigError{Key: "origins", Hint: "a list was in force and now there is none; write \"*\" to admit every origin"}
	}
	if err := now.Validate(); err != nil {
		return nil, fmt.Errorf("beside what cannot change: %w", err)
	}
	t, err := newTuned(now)
	if err != nil {
		return nil, err
	}
	old := s.tuned.Swap(t)
	if old.interval != t.interval || old.timeout != t.timeout {
		s.ground.Beats.Store(&turn.Beats{Interval: t.interval, Timeout: t.timeout})
		for _, l := range s.loops {
			l.postCall((*loop).Rebeat)
		}
	}
	return fixed, nil
}
