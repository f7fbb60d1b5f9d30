package settings

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/protocol/pattern"
	"github.com/parleyd/parley/rooms"
)

// The setting history: a list of PATTERN=messages:100;bytes:262144;age:300s;slow:drop, of which the first that matches a room
// counts.

// Bounds and defaults of a history.
const (
	historyMessages     = 100
	historyBytes        = 256 << 10
	historyAge          = 300 * time.Second
	historyMessagesMost = 100_000
	historyBytesMost    = 64 << 20
	historyAgeMost      = 30 * 24 * time.Hour
	historyEntriesMost  = 256
)

// historyRule is one entry of the setting.
type historyRule struct {
	rooms   pattern.Pattern
	options rooms.HistoryOptions
}

// ParseHistory compiles the setting, to a function that returns the history of a room, nil for none; of an empty list it is
// nil. hint says what is wrong with the setting; "" for nothing.
func ParseHistory(entries []string) (of func(room string) *rooms.HistoryOptions, hint string) {
	var rules []historyRule
	if len(entries) > historyEntriesMost {
		return nil, fmt.Sprintf("it has %d entries; give at most %d", len(entries), historyEntriesMost)
	}
	for i, entry := range entries {
		r, hint := parseHistoryRule(entry)
		if hint != "" {
			return nil, fmt.Sprintf("entry %d, %q: %s", i+1, entry, hint)
		}
		rules = append(rules, r)
	}
	if len(rules) == 0 {
		return nil, ""
	}
	return func(room string) *rooms.HistoryOptions {
		for i := range rules {
			if rules[i].rooms.Match(room) {
				return &rules[i].options
			}
		}
		return nil
	}, ""
}

// BoundHistory replaces zero values by the defaults, and values beyond the bounds by these. Messages of less than 0 stay.
func BoundHistory(o rooms.HistoryOptions) rooms.HistoryOptions {
	bound := func(value *int, standard, most int) {
		if *value == 0 {
			*value = standard
		}
		*value = min(*value, most)
	}
	o.Bytes, o.Age = max(o.Bytes, 0), max(o.Age, 0)
	bound(&o.Messages, historyMessages, historyMessagesMost)
	bound(&o.Bytes, historyBytes, historyBytesMost)
	if o.Age == 0 {
		o.Age = historyAge
	}
	o.Age = min(o.Age, historyAgeMost)
	return o
}

func parseHistoryRule(entry string) (r historyRule, hint string) {
	name, rest := entry, ""
	if at := strings.LastIndexByte(entry, '='); at >= 0 {
		name, rest = entry[:at], entry[at+1:]
	}
	var err error
	if r.rooms, err = pattern.Parse(name); err != nil {
		return r, err.Error() + "; an entry is like chat:*=messages:100"
	}
	r.options = BoundHistory(rooms.HistoryOptions{})
	if rest == "" {
		return r, ""
	}
	seen := map[string]bool{}
	for _, part := range strings.Split(rest, ";") {
		key, value, _ := strings.Cut(part, ":")
		if seen[key] {
			return r, fmt.Sprintf("%q stands there twice", key)
		}
		seen[key] = true
		if hint := r.take(key, value); hint != "" {
			return r, hint
		}
	}
	return r, ""
}

// take notes a part of an entry. hint says what is wrong with it.
func (r *historyRule) take(key, value string) (hint string) {
	whole := func(into *int, most int) string {
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > most {
			return fmt.Sprintf("%s:%s is out of range; give 1 to %d", key, value, most)
		}
		*into = n
		return ""
	}
	o := &r.options
	switch key {
	case "messages":
		return whole(&o.Messages, historyMessagesMost)
	case "bytes":
		return whole(&o.Bytes, historyBytesMost)
	case "age":
		age, err := time.ParseDuration(value)
		if seconds, bare := strconv.ParseFloat(value, 64); bare == nil {
			age, err = time.Duration(seconds*float64(time.Second)), nil
		}
		if err != nil || age < time.Millisecond || age > historyAgeMost {
			return fmt.Sprintf("age:%s is out of range; give a duration such as 300s, at most %v", value, historyAgeMost)
		}
		o.Age = age
		return ""
	case "slow":
		for policy, name := range slowPolicies {
			if name == value {
				o.Slow = rooms.SlowPolicy(policy)
				return ""
			}
		}
		return fmt.Sprintf("slow:%s is no policy; did you mean %s?", value, Nearest(value, slowPolicies[:]...))
	}
	return fmt.Sprintf("%q is no part of an entry; did you mean %s?", key, Nearest(key, "messages", "bytes", "age", "slow"))
}

// slowPolicies are the names of the policies.
var slowPolicies = [...]string{rooms.SlowDrop: "drop", rooms.SlowDisconnect: "disconnect", rooms.SlowConflate: "conflate"}
