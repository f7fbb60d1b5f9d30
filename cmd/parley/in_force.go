package main

import (
	"encoding/json"
	"reflect"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/cluster/bus"
)

// shownConfig is what the API shows of the settings in force: no secret, and not the hash of one.
//
// Owner: one goroutine.
type shownConfig struct {
	Settings map[string]any `json:"settings"`
	Rooms    []access.Entry `json:"rooms,omitempty"`
	Keys     []shownKey     `json:"keys,omitempty"`
}

// shownKey is a key without its hash.
//
// Owner: one goroutine.
type shownKey struct {
	ID     string   `json:"id"`
	Scopes []string `json:"scopes"`
	Rooms  []string `json:"rooms,omitempty"`
	Until  string   `json:"until,omitempty"`
}

// inForce are the settings of a running server, after its reloads.
func (b *backends) inForce(srv *engine.Server) *shownConfig {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := *b.settings
	s.Config = srv.Config()
	shown := &shownConfig{Settings: map[string]any{}, Rooms: s.Rules}
	for _, x := range table {
		shown.Settings[x.key] = x.shown(&s)
	}
	for _, k := range s.Keys {
		shown.Keys = append(shown.Keys, shownKey{k.ID, k.Scopes, k.Rooms, k.Until})
	}
	return shown
}

// shown is the value of s for JSON: seconds for a duration.
func (s setting) shown(in *settings) any {
	switch v := reflect.ValueOf(in).Elem().FieldByIndex(s.index).Interface().(type) {
	case time.Duration:
		return v.Seconds()
	case int:
		return json.Number(s.text(in))
	case string:
		if s.key == "bus_url" {
			return bus.RedactURL(v)
		}
		return v
	case []string:
		if s.key == "origins" && len(v) == 0 {
			return []string{"*"}
		}
		return append([]string{}, v...)
	default:
		return v
	}
}
