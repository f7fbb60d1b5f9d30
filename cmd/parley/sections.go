package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/engine/api"
)

// A section is a list in the configuration file that no flag and no variable can give. It is checked as strictly as the
// settings are: each mistake has its line, and the nearest known word.

// notYet are the sections whose names are taken for what comes later.
var notYet = []string{"hooks", "backend"}

// sectionNames are the names that a file may have besides settings.
var sectionNames = append([]string{"keys", "rooms"}, notYet...)

// sections are the sections of a file.
type sections struct {
	keys  []placedKey
	rules []placedRule
}

func (s *sections) empty() bool { return s.keys == nil && s.rules == nil }

// placedKey is an entry of the section keys, with the place of each of its fields.
type placedKey struct {
	api.KeyEntry
	where map[string]string // by field; the entry's own by ""
}

// read takes a section of a file.
func (s *sections) read(path, name string, n *yaml.Node) []error {
	switch name {
	case "keys":
		var mistakes []error
		s.keys, mistakes = readKeys(path, n)
		return mistakes
	case "rooms":
		var mistakes []error
		s.rules, mistakes = readRules(path, n)
		return mistakes
	default:
		return []error{fmt.Errorf("%s:%d: %s: this version of parley does not have it yet; leave the section out", path, n.Line, name)}
	}
}

func readKeys(path string, n *yaml.Node) (list []placedKey, mistakes []error) {
	if n.Kind != yaml.SequenceNode {
		return nil, []error{fmt.Errorf("%s:%d: keys: it is a list of keys, as `parley key create` prints them", path, n.Line)}
	}
	for _, entry := range n.Content {
		k := placedKey{where: map[string]string{}}
		wrong := decodeEntry(path, entry, &k.KeyEntry, k.where)
		mistakes = append(mistakes, wrong...)
		list = append(list, k)
	}
	return list, mistakes
}

// decodeEntry fills into, a pointer to a struct with yaml tags, and notes where each field stands.
func decodeEntry(path string, n *yaml.Node, into any, where map[string]string) (mistakes []error) {
	where[""] = fmt.Sprintf("%s:%d", path, n.Line)
	if n.Kind != yaml.MappingNode {
		return []error{fmt.Errorf("%s: an entry has the form {%s}", where[""], strings.Join(fieldsOf(into), ": ..., ")+": ...")}
	}
	target := reflect.ValueOf(into).Elem()
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		at := fmt.Sprintf("%s:%d", path, name.Line)
		field := fieldNamed(target, name.Value)
		switch {
		case !field.IsValid():
			mistakes = append(mistakes, fmt.Errorf("%s: there is no field %q%s", at, name.Value, didYouMean(name.Value, fieldsOf(into))))
		case where[name.Value] != "":
			mistakes = append(mistakes, fmt.Errorf("%s: %s is set twice; the first is %s", at, name.Value, where[name.Value]))
		default:
			where[name.Value] = at
			if value.Decode(field.Addr().Interface()) != nil {
				mistakes = append(mistakes, fmt.Errorf("%s: %s is not %s", at, name.Value, kindOf(field)))
			}
		}
	}
	return mistakes
}

func kindOf(field reflect.Value) string {
	if field.Kind() == reflect.Slice {
		return "a list of texts"
	}
	return "a text"
}

// fieldsOf are the names of the fields of a pointer to a struct, as a file writes them.
func fieldsOf(v any) (names []string) {
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

func fieldNamed(v reflect.Value, name string) reflect.Value {
	for i := range v.NumField() {
		if known, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ","); known == name {
			return v.Field(i)
		}
	}
	return reflect.Value{}
}

// readKeysFile reads a file of keys, which holds the section keys alone.
func readKeysFile(path string) ([]placedKey, []error) {
	root, mistakes := readMapping(path)
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	if root == nil {
		return nil, []error{fmt.Errorf("%s holds no keys: append what `parley key create` prints", path)}
	}
	var s sections
	for i := 0; i+1 < len(root.Content); i += 2 {
		name, node := root.Content[i], root.Content[i+1]
		if name.Value != "keys" || s.keys != nil {
			mistakes = append(mistakes, fmt.Errorf("%s:%d: a file of keys holds one list, `keys:`, not %q", path, name.Line, name.Value))
			continue
		}
		mistakes = append(mistakes, s.read(path, name.Value, node)...)
	}
	return s.keys, mistakes
}

// gather takes what the sections say, and checks it.
func (s *settings) gather(from sections) []error {
	return append(s.gatherKeys(from.keys, takeKeyVariable()), s.gatherRules(from.rules)...)
}

// gatherKeys puts the keys of the file, of api_keys_file and of the variable together, and checks them.
func (s *settings) gatherKeys(file []placedKey, variable string) (mistakes []error) {
	all := file
	if s.APIKeysFile != "" {
		more, wrong := readKeysFile(s.APIKeysFile)
		all, mistakes = append(all, more...), wrong
	}
	if variable != "" {
		entry, err := api.EntryOf(strings.TrimSpace(variable))
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", keyVariable, err))
		} else {
			entry.Scopes = []string{"all"}
			all = append(all, placedKey{entry, map[string]string{"": keyVariable}})
		}
	}
	if len(mistakes) > 0 {
		return mistakes
	}
	s.Keys = nil
	for _, k := range all {
		s.Keys = append(s.Keys, k.KeyEntry)
	}
	var wrong *api.EntryError
	if _, err := api.CompileKeys(s.Keys); errors.As(err, &wrong) {
		at := all[wrong.Index].where
		place := at[wrong.Field]
		if place == "" {
			place = at[""]
		}
		return []error{fmt.Errorf("%s: keys: %s: %s", place, wrong.Field, wrong.Why)}
	} else if err != nil {
		return []error{err}
	}
	return nil
}

// keyVariable holds one whole key, with all scopes.
const keyVariable = client.KeyVariable

// takeKeyVariable reads the variable, and takes it out of the environment of later children. A reload reads the same value.
func takeKeyVariable() string {
	if text, ok := os.LookupEnv(keyVariable); ok {
		heldKey = text
		os.Unsetenv(keyVariable)
	}
	return heldKey
}

var heldKey string
