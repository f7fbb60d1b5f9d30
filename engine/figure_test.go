package engine

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// checkFigures wants a row for each field of an S, but for those that are no figures, and rows that describe what they are.
func checkFigures[S any](t *testing.T, figures []Figure[S], parts map[string]any, others ...string) {
	t.Helper()
	s := new(S)
	found := map[any]string{} // the address of a field -> its key
	add := func(part reflect.Value, prefix string) {
		for i := range part.NumField() {
			key, _, _ := strings.Cut(part.Type().Field(i).Tag.Get("json"), ",")
			found[part.Field(i).Addr().Interface()] = prefix + key
		}
	}
	v := reflect.ValueOf(s).Elem()
	add(v, "")
	for name, part := range parts {
		v.FieldByName(name).Set(reflect.ValueOf(part))
		add(reflect.ValueOf(part).Elem(), strings.ToLower(name)+".")
	}
	metrics := map[string]bool{}
	for i := range figures {
		f := &figures[i]
		field := f.field(s)
		if reflect.ValueOf(field).Kind() != reflect.Pointer {
			others = append(others, f.Key) // it is made from several
		} else if found[field] != f.Key {
			t.Errorf("the row %s points to the field %q, or to one that another row has", f.Key, found[field])
		}
		delete(found, field)
		if !strings.HasSuffix(f.Help, ".") || len(strings.Fields(f.Help)) < 3 {
			t.Errorf("%s has the help %q", f.Key, f.Help)
		}
		if f.Metric == "" {
			continue
		}
		if metrics[f.Metric] || strings.HasSuffix(f.Metric, "_total") != (f.Kind == FigureCounter) {
			t.Errorf("the metric %s of %s is there twice, or has the name of another kind", f.Metric, f.Key)
		}
		metrics[f.Metric] = true
	}
	for _, key := range found {
		if !strings.Contains(" "+strings.Join(others, " ")+" ", " "+key+" ") {
			t.Errorf("%T has %q in /stats, and no row: it is in no sum, no metric, no document", *s, key)
		}
	}
}

// Every figure has its row.
func TestFigures(t *testing.T) {
	checkFigures(t, serverFigures, nil, "loops", "workers", "bus", "bus_process", "process")
	checkFigures(t, loopFigures, nil, "worker")
	checkFigures(t, workerFigures, map[string]any{"Bus": new(BusStats), "Process": new(ProcessStats)},
		"index", "instance", "pid", "cause", "bus", "process", "worker")
}

// numbers flattens the figures of a Stats.
func numbers(s *Stats) (list []uint64) {
	for i := range serverFigures {
		switch v := reflect.ValueOf(serverFigures[i].field(s)).Elem(); {
		case v.CanInt():
			list = append(list, uint64(v.Int()))
		case v.CanUint():
			list = append(list, v.Uint())
		case v.Kind() == reflect.Array:
			list = append(list, v.Index(v.Len()-1).Uint())
		default:
			list = append(list, s.Ended["heartbeat"])
		}
	}
	return list
}

// Every count is counted somewhere, on a loop or on the server, and shows in exactly one figure.
func TestCountsAreFigures(t *testing.T) {
	s := newScript(t, nil).server.Server
	read := func() []uint64 { here := s.StatsHere(); return numbers(&here) }
	memory := -1
	for i := range serverFigures {
		if serverFigures[i].Key == "memory_usage" {
			memory = i // it changes by itself
		}
	}
	for c := range countsEnd {
		before := read()
		s.count[c].Add(1)
		s.loops[1].Count[c].Add(2)
		grown := 0
		for i, n := range read() {
			if i != memory && n != before[i] {
				if grown++; n != before[i]+3 || serverFigures[i].Kind != FigureCounter {
					t.Errorf("count %d: %s is %d, was %d", c, serverFigures[i].Key, n, before[i])
				}
			}
		}
		if grown != 1 {
			t.Errorf("count %d is in %d figures, want one", c, grown)
		}
	}
	source, table := sourceOf(t, "*.go")+sourceOf(t, "internal/*/*.go"), sourceOf(t, "counts.go")+sourceOf(t, "internal/turn/counters.go")
	for _, name := range regexp.MustCompile(`(?m)^\t[cC]ount[A-Z]\w+`).FindAllString(table, -1) {
		if name = strings.TrimSpace(name); !regexp.MustCompile(`[cC]ount\[(?:turn\.)?` + name + `\]\.Add|tally\[` + name + `\]`).MatchString(source) {
			t.Errorf("%s is never counted", name)
		}
	}
}

// sourceOf is the text of this package's files, without its tests.
func sourceOf(t *testing.T, pattern string) string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	var b strings.Builder
	for _, path := range paths {
		if text, err := os.ReadFile(path); err != nil {
			t.Fatal(err)
		} else if !strings.HasSuffix(path, "_test.go") {
			b.Write(text)
		}
	}
	return b.String()
}

// Each figure is in the sum of two workers; of one that is gone, the counters stay.
func TestSumsOfFigures(t *testing.T) {
	var one, both, past Stats
	one.Ended = map[string]uint64{"heartbeat": 7}
	one.SessionSaves[len(SaveSecondsBounds)] = 7
	for i := range serverFigures {
		store(serverFigures[i].field(&one), 7)
	}
	both.Add(one)
	both.Add(one)
	past.AddCounts(one)
	past.AddCounts(one)
	kept := numbers(&past)
	for i, n := range numbers(&both) {
		sum, stays := uint64(14), uint64(0)
		switch serverFigures[i].Kind {
		case FigureHighest:
			sum = 7
		case FigureCounter, FigureHistogram:
			stays = 14
		}
		if n != sum || kept[i] != stays {
			t.Errorf("%s: 7 and 7 are %d, want %d; %d stays, want %d", serverFigures[i].Key, n, sum, kept[i], stays)
		}
	}
}
