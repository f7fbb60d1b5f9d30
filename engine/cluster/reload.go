package cluster

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/parleyd/parley/engine"
)

// Fresh is a configuration that was read again.
type Fresh struct {
	Config engine.Config   `json:"config"`        // for engine.Server.Reload, in every process that has connections
	Own    json.RawMessage `json:"own,omitempty"` // the program's own settings, for Options.Adopt
}

// reread is the supervisor's part of a reload. All workers get its result, including those that start later. It refuses
// an invalid configuration: the supervisor's own server never serves, but checks settings as a worker's does.
func reread(srv *engine.Server, o Options, given inheritance) (json.RawMessage, error) {
	fresh, err := o.Reload()
	if err != nil {
		return nil, err
	}
	before := srv.Config()
	fixed, err := adopt(fresh, srv, o) // the workers log the fixed settings, except bus_url, which they cannot compare
	if err != nil {
		return nil, err
	}
	if slices.Contains(fixed, "bus_url") {
		o.Log.Warn("a setting has changed that needs a restart; the old value stays in force", "setting", "bus_url")
	}
	sayChanges(o, before, srv.Config())
	given.Fresh = &fresh // its BusURL with the password, by the pipe
	raw, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("encode settings: %w", err)
	}
	return raw, nil
}

// inherit is a child's part of a reload. srv is nil in the bus. It returns the names of the settings that need a restart.
func inherit(settings json.RawMessage, srv *engine.Server, o Options) (fixed []string) {
	var given inheritance
	err := json.Unmarshal(settings, &given)
	if err == nil && given.Fresh != nil {
		if srv != nil {
			given.Fresh.Config.BusURL = srv.Config().BusURL // maybe without its password; the supervisor has compared them
		}
		fixed, err = adopt(*given.Fresh, srv, o)
	}
	if err != nil {
		o.Log.Error("the configuration cannot be reloaded; the old one stays in force", "err", err)
	}
	return fixed
}

func adopt(fresh Fresh, srv *engine.Server, o Options) (fixed []string, err error) {
	if srv != nil {
		if fixed, err = srv.Reload(fresh.Config); err != nil {
			return nil, err
		}
	}
	if o.Adopt != nil {
		fixed = append(fixed, o.Adopt(fresh.Own)...)
	}
	return fixed, nil
}

// reloadAlone is a reload of a server of one process.
func reloadAlone(srv *engine.Server, o Options) {
	var fixed []string
	before := srv.Config()
	fresh, err := o.Reload()
	if err == nil {
		fixed, err = adopt(fresh, srv, o)
	}
	if err != nil {
		o.Log.Error("the configuration cannot be reloaded; the old one stays in force", "err", err)
		return
	}
	for _, name := range fixed {
		o.Log.Warn("a setting has changed that needs a restart; the old value stays in force", "setting", name)
	}
	sayChanges(o, before, srv.Config())
	o.Log.Info("reloaded")
}

// sayChanges logs the settings that a reload has changed, so that an operator sees, for example, an origin that was deleted
// by mistake. Secrets cannot change while the server runs, and are never logged here.
func sayChanges(o Options, before, after engine.Config) {
	from, to := reflect.ValueOf(before), reflect.ValueOf(after)
	for i := range from.NumField() {
		if key := from.Type().Field(i).Tag.Get("key"); key != "-" && !reflect.DeepEqual(from.Field(i).Interface(), to.Field(i).Interface()) {
			o.Log.Info("setting changed", "setting", key, "from", fmt.Sprint(from.Field(i)), "to", fmt.Sprint(to.Field(i)))
		}
	}
}
