package engine

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/handshake"
)

// tuned is the part of the configuration that may change while the server runs, except the heartbeats, which are the
// transport's: turn.Beats. Loops read it through one pointer, so that they see a change as a whole.
//
// Owner: immutable.
type tuned struct {
	cfg         Config // the whole configuration, with the changes
	announceMax int
	origins     *handshake.Origins
}

// tunable are the keys of the settings that may change. All others are fixed once the server runs.
var tunable = []string{"announce_members_max", "heartbeat_interval", "heartbeat_timeout", "origins"}

func newTuned(cfg Config) (*tuned, error) {
	origins, err := handshake.NewOrigins(cfg.Origins)
	if err != nil {
		return nil, &ConfigError{Key: "origins", Hint: err.Error()}
	}
	return &tuned{cfg: cfg, announceMax: cfg.AnnounceMembersMax, origins: origins}, nil
}

// beatsOf are the heartbeats of a configuration.
func beatsOf(cfg *Config) *turn.Beats {
	return &turn.Beats{Interval: int64(cfg.HeartbeatInterval), Timeout: int64(cfg.HeartbeatTimeout)}
}

// Config is the present configuration, with defaults filled in; the caller may change it. Any goroutine.
func (s *Server) Config() Config { return s.tuned.Load().cfg.clone() }

// Reload applies the changes of cfg in announce_members_max, heartbeat_interval, heartbeat_timeout and origins, all at once,
// and returns the keys of other settings that differ: those need a new process. Empty origins are refused if a list was in
// force, since a lost list is more likely a mistake than the wish to admit every page; write "*" for that. New origins apply
// to new connections; new heartbeats apply to all connections from their next one on. Any goroutine; each loop looks at its
// connections once, which takes some 10 ms for 100,000. The error, a *[ConfigError], leaves all settings unchanged.
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
	s.tuned.Store(t)
	beats := beatsOf(&t.cfg)
	if old := s.ground.Beats.Swap(beats); *old != *beats {
		for _, l := range s.loops {
			l.postCall((*loop).Rebeat)
		}
	}
	return fixed, nil
}
