package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/engine/cluster/bus"
)

// value is a setting as the operator wrote it, and its place.
type value struct {
	text  string
	where string // "parley.yaml:3", "PARLEY_PORT", "--port"
}

// load reads the settings of a command: defaults, then the file, the environment, the flags. All mistakes
// are reported at once, each with its place.
func load(cmd *cobra.Command) (*settings, map[string]string, error) {
	if text := os.Getenv(settledVariable); text != "" && !cluster.Parent() {
		var s settings
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			return nil, nil, fmt.Errorf("read settings of the supervisor from %s: %w", settledVariable, err)
		}
		return &s, nil, nil
	}
	merged := map[string]value{}
	var mistakes []error
	path, _ := cmd.Flags().GetString("config")
	if path == "" {
		path = os.Getenv(envPrefix + "CONFIG")
	}
	var notes []string
	var lists sections
	empty := ""
	for _, read := range []func() (map[string]value, []error){
		func() (values map[string]value, wrong []error) {
			if values, lists, wrong = fromFile(path); len(values) == 0 && lists.empty() {
				empty = path
			}
			return values, wrong
		},
		func() (values map[string]value, wrong []error) {
			values, notes, wrong = fromEnvironment(append(os.Environ(), withheld...))
			return values, wrong
		},
		func() (map[string]value, []error) { return fromFlags(cmd), nil },
	} {
		values, wrong := read()
		mistakes = append(mistakes, wrong...)
		if above, below := values["origins"], merged["origins"]; above.text == noOrigins && below.where != "" && below.text != noOrigins {
			mistakes = append(mistakes, fmt.Errorf("%s: origins: it is empty, and would lift the list of %s; write \"*\" to admit every origin", above.where, below.where))
		}
		maps.Copy(merged, values)
	}
	out := defaultSettings()
	out.notes, out.empty = notes, empty
	if empty != "" {
		out.notes = append(out.notes, empty+" holds no setting")
	}
	sources := map[string]string{}
	for _, s := range table {
		v, ok := merged[s.key]
		if !ok {
			sources[s.key] = "default"
			continue
		}
		sources[s.key] = v.where
		if err := s.set(&out, v.text); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %s: %w", v.where, s.key, err))
		}
	}
	followSettings(&out, sources)
	mistakes = slices.Concat(mistakes, out.gatherBusURL(merged["bus_url"], sources), out.gather(lists))
	if err := out.check(); err != nil && len(mistakes) == 0 {
		mistakes = append(mistakes, placed(err, sources))
	}
	if len(mistakes) > 0 {
		return nil, nil, usageError{redacted{errors.Join(mistakes...)}}
	}
	if v := merged["origins"]; v.text == noOrigins {
		out.notes = append(out.notes, v.where+": origins is an empty list, with which every page may connect; write [\"*\"] if you mean that")
	}
	if note := out.exposure(); note != "" {
		out.notes = append(out.notes, note)
	}
	return &out, sources, nil
}

// exposure is a warning if the settings let every client on the network in; "" if they do not.
func (s *settings) exposure() string {
	if isLoopback(s.Host) || len(s.Origins) > 0 || s.Auth == "required" {
		return ""
	}
	return fmt.Sprintf("host is %s and origins is not set: every client that reaches the port may connect, from any page, and join any room; "+
		"list the pages in origins (\"*\" for all), and set auth, or let a program with package engine decide about rights", s.Host)
}

// settledVariable hands the supervisor's settings on to its children: a child that is restarted while the operator edits
// the file must get the same settings as the others. Other processes of this user can read an environment, and dumps of
// it travel: the password of bus_url and the keys of the API go another way (package cluster's welcome).
const settledVariable = envPrefix + "SETTLED"

// withheld is the variable of bus_url that handOn has taken out of the environment: a reload reads it here.
var withheld []string

// handOn puts s into the environment for this process's children, without the password of bus_url and the keys of the API.
func handOn(s *settings) error {
	if name := envPrefix + "BUS_URL"; os.Getenv(name) != "" {
		withheld = []string{name + "=" + os.Getenv(name)}
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("keep %s from the workers: %w", name, err)
		}
	}
	shown := *s
	shown.BusURL, shown.Keys = bus.RedactURL(s.BusURL), nil
	raw, err := json.Marshal(shown)
	if err != nil {
		return fmt.Errorf("encode settings: %w", err)
	}
	return os.Setenv(settledVariable, string(raw))
}

// followSettings changes defaults that would contradict a setting.
func followSettings(s *settings, sources map[string]string) {
	if sources["examples"] == "default" {
		s.Examples = s.Auth == "off"
	}
	if sources["heartbeat_timeout"] == "default" {
		s.HeartbeatTimeout = max(s.HeartbeatTimeout, 2*s.HeartbeatInterval)
	}
	soft, hard := engine.BacklogDefaults(s.MessageBytesMax)
	if sources["backlog_soft_bytes"] == "default" {
		s.BacklogSoftBytes = soft
		if sources["backlog_hard_bytes"] != "default" {
			s.BacklogSoftBytes = min(soft, s.BacklogHardBytes)
		}
	}
	if sources["backlog_hard_bytes"] == "default" {
		s.BacklogHardBytes = max(hard, s.BacklogSoftBytes)
	}
}

// placed adds the place of the setting that the engine refuses.
func placed(err error, sources map[string]string) error {
	var wrong *engine.ConfigError
	if errors.As(err, &wrong) && sources[wrong.Key] != "default" {
		return fmt.Errorf("%s: %w", sources[wrong.Key], err)
	}
	return err
}

// fromFile reads a flat YAML mapping, and its sections. JSON is YAML.
func fromFile(path string) (values map[string]value, lists sections, mistakes []error) {
	if path == "" {
		return nil, lists, nil
	}
	root, mistakes := readMapping(path)
	if root == nil {
		return nil, lists, mistakes
	}
	values = map[string]value{}
	begun := map[string]string{} // where each section begins
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d", path, key.Line)
		if slices.Contains(sectionNames, key.Value) {
			if begun[key.Value] != "" {
				mistakes = append(mistakes, fmt.Errorf("%s: %s is set twice; the first is %s", where, key.Value, begun[key.Value]))
				continue
			}
			begun[key.Value] = where
			mistakes = append(mistakes, lists.read(path, key.Value, node)...)
			continue
		}
		s, known := findSetting(key.Value)
		text, err := s.written(node)
		if node.Tag == "!!null" && (slices.Contains(mayBeEmpty, key.Value)) {
			err = nil
		}
		switch {
		case !known:
			mistakes = append(mistakes, fmt.Errorf("%s: there is no setting %q%s", where, key.Value, didYouMean(key.Value, append(keys(), sectionNames...))))
		case err != nil:
			mistakes = append(mistakes, fmt.Errorf("%s: %s: %w", where, key.Value, err))
		case values[key.Value].where != "":
			mistakes = append(mistakes, fmt.Errorf("%s: %s is set twice; the first is %s", where, key.Value, values[key.Value].where))
		default:
			values[key.Value] = value{text, where}
		}
	}
	return values, lists, mistakes
}

// readMapping reads a file of one YAML mapping; nil if it is empty or wrong.
func readMapping(path string) (*yaml.Node, []error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, []error{fmt.Errorf("read configuration: %w", err)}
	}
	var doc, next yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, []error{fmt.Errorf("%s: %w", path, err)}
	}
	switch err := decoder.Decode(&next); {
	case err != nil && !errors.Is(err, io.EOF):
		return nil, []error{fmt.Errorf("%s: %w", path, err)}
	case len(next.Content) > 0 && next.Content[0].Tag != "!!null":
		return nil, []error{fmt.Errorf("%s:%d: a second document begins here; write all settings into one, without --- between them", path, next.Content[0].Line)}
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, []error{fmt.Errorf("%s:%d: the file must hold settings, one `key: value` a line", path, root.Line)}
	}
	return root, nil
}

// noOrigins is the text of an empty list of origins. At a start it means the default, with a warning: earlier versions had
// it as the default, and check-config printed it. It does not lift a list of another source, or one that is in force.
const noOrigins = "[]"

// written is the text of a node in the file, as the value of s.
func (s setting) written(n *yaml.Node) (string, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.SequenceNode && s.typ != reflect.TypeFor[[]string]():
		return "", errors.New("it is one value, not a list")
	case n.Kind == yaml.SequenceNode && len(n.Content) == 0 && s.key == "origins":
		return noOrigins, nil
	}
	return scalar(n)
}

// scalar is the text of a value, or of a list of them.
func scalar(n *yaml.Node) (string, error) {
	switch n.Kind {
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "", errors.New("the value is missing")
		}
		return n.Value, nil
	case yaml.SequenceNode:
		var parts []string
		for _, x := range n.Content {
			if strings.Trim(x.Value, "\"'") != x.Value {
				return "", fmt.Errorf("there are quotes within %s that would be part of a value; leave them out", x.Value)
			}
			if x.Kind != yaml.ScalarNode {
				return "", errors.New("a list holds plain values only")
			}
			parts = append(parts, x.Value)
		}
		return strings.Join(parts, ","), nil
	}
	return "", errors.New("settings are flat; write one value behind the key")
}

func fromFlags(cmd *cobra.Command) map[string]value {
	values := map[string]value{}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if t, ok := f.Value.(*textFlag); ok {
			values[t.setting.key] = value{t.text, "--" + f.Name}
		}
	})
	return values
}

// didYouMean names the known word nearest to a mistaken one, if any is near.
func didYouMean(word string, known []string) string {
	if best, distance := nearest(strings.ToLower(word), known); best != "" && distance <= max(len(word)/2, 2) && distance < len(word) {
		return fmt.Sprintf("; did you mean %q?", best)
	}
	return ""
}

// nearest is the known word with the smallest edit distance to word, and that distance.
func nearest(word string, known []string) (best string, distance int) {
	distance = len(word) + 1
	for _, k := range known {
		if d := editDistance(word, k); d < distance {
			best, distance = k, d
		}
	}
	return best, distance
}

// editDistance is the least number of letters to insert, delete, replace, or swap with their neighbour.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
