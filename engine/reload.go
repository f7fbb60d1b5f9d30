package engine

import (
	"fmt"
	"slices"

	"github.com/parleyd/parley/engine/internal/rate"
	"github.com/parleyd/parley/engine/internal/settings"
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
var tunable = []string{"announce_members_max", "connections_per_address_max", "heartbeat_interval", "heartbeat_timeout",
	"message_burst", "message_rate", "message_strikes", "origins"}

func newTuned(cfg Config) (*tuned, error) {
	origins, err := handshake.NewOrigins(cfg.Origins)
	if err != nil {
		return nil, &ConfigError{Key: "origins", Hint: err.Error()}
	}
	return &tuned{cfg: cfg, announceMax: cfg.AnnounceMembersMax, origins: origins}, nil
}

// admit sets the limits of newcomers and of their messages.
func (s *Server) admit(cfg *Config) {
	s.ground.Crowds.Max.Store(int64(cfg.ConnectionsPerAddressMax))
	s.ground.Rate.Store(rate.NewRule(cfg.MessageRate, cfg.MessageBurst, cfg.MessageStrikes))
}

// Config is the present configuration, with defaults filled in; the caller may change it. Any goroutine.
func (s *Server) Config() Config { return s.tuned.Load().cfg.clone() }

// Reload applies the changes of cfg in announce_members_max, connections_per_address_max, heartbeat_interval,
// heartbeat_timeout, message_rate, message_burst, message_strikes, origins and HideUsers, all at once, and returns the keys of other
// settings that differ: those need a new process. Empty origins are refused if a list was in
// force, since a lost list is more likely a mistake than the wish to admit every page; write "*" for that. New origins apply
// to new connections, as does a limit of connections per address, for which connections do not count that came while it was
// 0; new heartbeats apply to all connections from their next one on. Any goroutine; each loop looks at its
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
	fixed = settings.Tune(&now, cfg, tunable)
	now.HideUsers = cfg.HideUsers // which has no key
	if was := s.Config(); len(now.Origins) == 0 && len(was.Origins) > 0 && !slices.Contains(was.Origins, "*") {
		return nil, &ConfigError{Key: "origins", Hint: "a list was in force and now there is none; write \"*\" to admit every origin"}
	}
	if err := now.Validate(); err != nil {
		return nil, fmt.Errorf("the new settings, together with those that cannot change without a restart: %w", err)
	}
	t, err := newTuned(now)
	if err != nil {
		return nil, err
	}
	s.tuned.Store(t)
	s.admit(&t.cfg)
	beats := turn.NewBeats(t.cfg.HeartbeatInterval, t.cfg.HeartbeatTimeout)
	if old := s.ground.Beats.Swap(beats); *old != *beats {
		for _, l := range s.loops {
			l.PostCall(l.Rebeat)
		}
	}
	return fixed, nil
}
