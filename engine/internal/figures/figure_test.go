package figures

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/internal/budget"
	"github.com/parleyd/parley/engine/internal/fanout"
	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/rooms"
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
		if metrics[f.Metric] || strings.HasSuffix(f.Metric, "_total") != (f.Kind == Counter) {
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
	checkFigures(t, Server, nil, "unready", "loops", "workers", "bus", "bus_process", "process")
	checkFigures(t, Loop, nil, "worker")
	checkFigures(t, Worker, map[string]any{"Bus": new(BusStats), "Process": new(ProcessStats), "Order": new(SequencerStats)},
		"index", "instance", "pid", "cause", "bus", "process", "order", "worker")
}

func metricsOf[S any](figures []Figure[S], to map[string]bool) {
	for i := range figures {
		to[figures[i].Metric] = true
	}
}

// There is advice on metrics that exist, once each, in sentences.
func TestAdvice(t *testing.T) {
	known := map[string]bool{}
	metricsOf(Server, known)
	metricsOf(Loop, known)
	metricsOf(Worker, known)
	for _, a := range Advised {
		if !known[a.Metric] || a.When == "" || !strings.HasSuffix(a.Do, ".") {
			t.Errorf("%+v: there is no such metric, or it is advised on twice, or its advice is no sentence", a)
		}
		known[a.Metric] = false
	}
}

// numbers flattens the figures of a Stats.
func numbers(s *Stats) (list []uint64) {
	for i := range Server {
		switch v := reflect.ValueOf(Server[i].field(s)).Elem(); {
		case v.CanInt():
			list = append(list, uint64(v.Int()))
		case v.CanUint():
			list = append(list, v.Uint())
		case v.Kind() == reflect.Array:
			list = append(list, v.Index(v.Len()-1).Uint())
		default:
			n := uint64(0)
			for _, one := range *Server[i].field(s).(*map[string]uint64) {
				n += one
			}
			list = append(list, n)
		}
	}
	return list
}

// Every count is counted somewhere, on a loop or on the server, and shows in exactly one figure.
func TestCountsAreFigures(t *testing.T) {
	r := &fanout.Rooms{Ground: &turn.Ground{Clock: func() int64 { return 0 }}, Index: rooms.NewIndex(2, rooms.Options{}),
		Link: fleet.NewLink(1, 2, fleet.Above{}), Count: new(turn.Counters), Loops: []*fanout.Loop{&new(session.Loop).Loop, &new(session.Loop).Loop}}
	sessions := session.New(r, session.Options{}, session.Above{})
	s := &Source{r, sessions, &budget.Budget{Rooms: r, Sessions: sessions}, func() time.Duration { return 0 }, func() uint64 { return 0 }, Keys{}, func() uint64 { return 0 }}
	read := func() []uint64 { here := s.Read(); return numbers(&here) }
	memory := -1
	for i := range Server {
		if Server[i].Key == "memory_usage" {
			memory = i // it changes by itself
		}
	}
	for c := range CountsEnd {
		before := read()
		r.Count[c].Add(1)
		r.Loops[1].Count[c].Add(2)
		grown := 0
		for i, n := range read() {
			if i != memory && n != before[i] {
				if grown++; n != before[i]+3 || Server[i].Kind != Counter {
					t.Errorf("count %d: %s is %d, was %d", c, Server[i].Key, n, before[i])
				}
			}
		}
		if grown != 1 {
			t.Errorf("count %d is in %d figures, want one", c, grown)
		}
	}
	source := sourceOf(t, "../../*.go") + sourceOf(t, "../*/*.go")
	table := sourceOf(t, "counts.go") + sourceOf(t, "../turn/counters.go") + sourceOf(t, "../pending/conn.go") + sourceOf(t, "../fanout/rooms.go") + sourceOf(t, "../session/sessions.go")
	for _, name := range regexp.MustCompile(`(?m)^\tCount[A-Z]\w+`).FindAllString(table, -1) {
		if name = strings.TrimSpace(name); name != "CountsEnd" && name != "CountersOfOwner" && name != "CountersMax" && !regexp.MustCompile(`[cC]ount\[(?:\w+\.)?`+name+`\](?:\.Add|, )|tally\[`+name+`\]`).MatchString(source) {
			t.Errorf("%s is never counted", name)
		}
	}
}

// sourceOf is the text of files, without its tests.
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
	one.SessionSaves[len(session.SaveSecondsBounds)] = 7
	one.OrderWaits[len(one.OrderWaits)-1] = 7
	for i := range Server {
		if table, is := Server[i].field(&one).(*map[string]uint64); is {
			*table = map[string]uint64{"heartbeat": 7}
		}
		store(Server[i].field(&one), 7)
	}
	both.Add(one)
	both.Add(one)
	past.AddCounts(one)
	past.AddCounts(one)
	kept := numbers(&past)
	for i, n := range numbers(&both) {
		sum, stays := uint64(14), uint64(0)
		switch Server[i].Kind {
		case Highest:
			sum = 7
		case Counter, Histogram:
			stays = 14
		}
		if n != sum || kept[i] != stays {
			t.Errorf("%s: 7 and 7 are %d, want %d; %d stays, want %d", Server[i].Key, n, sum, kept[i], stays)
		}
	}
}

// A histogram has, for each bound, the durations up to it; of several workers their sum, also when one has ended.
func TestDurations(t *testing.T) {
	var all Stats
	one := Stats{OrderWaits: Waits{1, 0, 2}, OrderWaitMicros: 3_500_000}
	one.OrderWaits[len(one.OrderWaits)-1] = 4
	one.SessionSaves[1], one.SessionSaveMicros = 5, 7
	all.Add(one)
	all.AddCounts(one)
	seen := 0
	for i := range Server {
		f := &Server[i]
		if f.Kind != Histogram {
			continue
		}
		seen++
		buckets, count, sum := f.Durations(&all)
		switch f.Metric {
		case "order_seconds":
			if count != 14 || sum != 7 || buckets[.0005] != 2 || buckets[.001] != 2 || buckets[.0025] != 6 || buckets[2] != 6 || len(buckets) != 9 {
				t.Errorf("%s: %v, %d, %v", f.Metric, buckets, count, sum)
			}
		case "session_save_seconds":
			if count != 10 || sum != 14e-6 || buckets[.005] != 0 || buckets[.01] != 10 || buckets[2] != 10 {
				t.Errorf("%s: %v, %d, %v", f.Metric, buckets, count, sum)
			}
		}
	}
	if seen != 2 {
		t.Errorf("there are %d histograms, and two are tested", seen)
	}
}
