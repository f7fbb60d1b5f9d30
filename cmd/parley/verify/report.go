package verify

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Finding is one promise that was broken.
//
// Owner: the report.
type Finding struct {
	Kind  string   `json:"kind"`  // lost, twice, order, leak, own, ...: docs/verify.md explains them
	Text  string   `json:"text"`  // connection, fault and room
	After float64  `json:"after"` // seconds since the start
	Trace []string `json:"trace"` // the last messages that the connections concerned sent and read
}

// Report is the outcome of a run.
//
// Owner: the checker while it runs, then the caller.
type Report struct {
	URL      string           `json:"url"`
	Seed     uint64           `json:"seed"`
	Command  string           `json:"command"` // repeats the run
	Seconds  float64          `json:"seconds"`
	Done     map[string]int64 `json:"done"`    // acts, by kind
	Checked  map[string]int64 `json:"checked"` // checks, by kind
	Found    map[string]int64 `json:"found"`   // findings, by kind
	Findings []Finding        `json:"findings"`
	Notes    []string         `json:"notes"` // circumstances of the run, such as a busy machine
	Harm     []string         `json:"harm"`  // kills, freezes and wipes, with their times
}

// These bound the findings that are kept in full; further ones are only counted.
const (
	findingsKept = 20
	sameKept     = 4 // of one kind
)

func newReport(o *Options) *Report {
	return &Report{URL: o.URL, Seed: o.Seed, Command: o.command(), Done: map[string]int64{}, Checked: map[string]int64{},
		Found: map[string]int64{}, Findings: []Finding{}, Notes: []string{}, Harm: []string{}}
}

// Clean reports whether the run has no findings.
func (r *Report) Clean() bool { return len(r.Found) == 0 }

// WriteJSON writes the report as one JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report for a person.
func (r *Report) WriteText(w io.Writer) {
	fmt.Fprintf(w, "\n%s, %.1f s, seed %d\n\n", r.URL, r.Seconds, r.Seed)
	writeCounts(w, "done", r.Done)
	writeCounts(w, "checked", r.Checked)
	for _, n := range r.Notes {
		fmt.Fprintf(w, "note: %s\n", n)
	}
	if r.Clean() {
		fmt.Fprintf(w, "clean: every promise that was checked was kept\n")
		return
	}
	for _, h := range r.Harm {
		fmt.Fprintf(w, "%s\n", h)
	}
	writeCounts(w, "FOUND", r.Found)
	for i, f := range r.Findings {
		fmt.Fprintf(w, "\n%d. %s (after %.2f s): %s\n", i+1, f.Kind, f.After, f.Text)
		for _, line := range f.Trace {
			fmt.Fprintf(w, "     %s\n", line)
		}
	}
	fmt.Fprintf(w, "\nto repeat it: %s\n", r.Command)
}

func writeCounts(w io.Writer, title string, counts map[string]int64) {
	fmt.Fprintf(w, "%s:", title)
	width := 0
	for i, name := range slices.Sorted(maps.Keys(counts)) {
		text := fmt.Sprintf(" %s %d", name, counts[name])
		if i > 0 {
			fmt.Fprint(w, ",")
		}
		if width += len(text) + 1; width > 100 {
			fmt.Fprint(w, "\n   ")
			width = len(text)
		}
		fmt.Fprint(w, text)
	}
	fmt.Fprintln(w)
}

// found records a finding with the last steps of the connections concerned, in room r unless r is nil.
func (k *checker) found(kind string, r *room, conns []*conn, text string) {
	k.report.Found[kind]++
	if len(k.report.Findings) >= findingsKept || k.report.Found[kind] > sameKept {
		return
	}
	k.report.Findings = append(k.report.Findings, Finding{Kind: kind, Text: text,
		After: k.now.Sub(k.started).Seconds(), Trace: k.traceOf(r, conns)})
}

// A step is one event of a connection, such as a message that it sent or read.
//
// Owner: the connection's trace.
type step struct {
	evt  uint64
	at   time.Time
	what string
	room *room
	from *conn // the publisher of the message
	n    int64 // its number, or a count; negative: none
}

const (
	stepsKept  = 32 // of each connection
	stepsShown = 12 // in a finding
)

// note records a step in the connection's ring.
func (c *conn) note(s step) {
	c.k.evt++
	s.evt, s.at = c.k.evt, c.k.now
	if len(c.steps) < stepsKept {
		c.steps = append(c.steps, s)
		return
	}
	c.steps[c.step] = s
	c.step = (c.step + 1) % stepsKept
}

// traceOf names connections, and merges their last steps in the order of events.
func (k *checker) traceOf(r *room, conns []*conn) []string {
	type line struct {
		of *conn
		step
	}
	var all []line
	var list []string
	for i, c := range conns {
		if c == nil || slices.Contains(conns[:i], c) {
			continue
		}
		list = append(list, fmt.Sprintf("%8.4f  %-14s begins; the server calls it %s", c.begun.Sub(k.started).Seconds(), c, c.id))
		for _, s := range c.steps {
			if s.room != nil && r != nil && s.room != r || s.from != nil && !slices.Contains(conns, s.from) {
				continue
			}
			all = append(all, line{c, s})
		}
	}
	slices.SortFunc(all, func(a, b line) int { return int(int64(a.evt) - int64(b.evt)) })
	all = all[max(0, len(all)-stepsShown):]
	for _, s := range all {
		text := fmt.Sprintf("%8.4f  %-14s %s", s.at.Sub(k.started).Seconds(), s.of, s.what)
		if s.room != nil {
			text += " " + s.room.name
		}
		if s.from != nil {
			text += fmt.Sprintf(" %v", s.from)
		}
		if s.n >= 0 {
			text += fmt.Sprintf(" #%d", s.n)
		}
		list = append(list, text)
	}
	return list
}
