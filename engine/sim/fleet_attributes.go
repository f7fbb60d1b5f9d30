package sim

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/internal/fleet"
	workers "github.com/parleyd/parley/engine/internal/membership"
)

// Backends on any worker set an attribute of any connection. The last writer wins: of two values, one of which was set when the
// other was asked for, the other stays. A resume restores it.

// marking is one value of the attribute, as a backend set it.
//
// Owner: the simulation.
type marking struct {
	value  string
	asked  int // see fleetTruth.clock
	set    int // 0: perhaps not yet
	setAt  time.Duration
	failed bool
}

// mark makes a backend on a worker set the attribute.
func (f *Fleet) mark(w *worker, c *fleetConn) {
	x := &marking{value: strconv.Itoa(f.number()), asked: f.truth.tick()}
	c.marks = append(c.marks, x)
	f.tracef("worker %d marks %s with %s", w.instance, c.id, x.value)
	change := fleet.AttributesChange{Keys: []string{"mark"}, Values: [][]byte{[]byte(strconv.Quote(x.value))}}
	q := workers.Question{Verb: fleet.Attributes, ID: c.id, With: func(q *fleet.Writer) { q.B = change.AppendTo(q.B) }}
	w.server.Server.Worker().AskThen(q, func(err error) {
		f.tracef("worker %d has marked %s with %s: %v", w.instance, c.id, x.value, err)
		switch {
		case err == nil:
			x.set, x.setAt = f.truth.tick(), f.now
			f.truth.marked(c)
		case !errors.Is(err, fleet.ErrUnanswered):
			x.failed = true
		}
	})
}

// marked checks the attribute of a connection.
func (t *fleetTruth) marked(c *fleetConn) {
	value, _ := engine.Attribute[string](c.conn, "mark")
	if !c.mayHave(value, func(*marking) bool { return true }) {
		t.f.complain("attributes", "%s is marked with %q, which was overwritten or never set", c.id, value)
	}
}

// mayHave reports whether a value is not overwritten by another that counts.
func (c *fleetConn) mayHave(value string, counts func(*marking) bool) bool {
	return slices.ContainsFunc(c.marks, func(x *marking) bool {
		return x.value == value && !x.failed && (x.set == 0 || !slices.ContainsFunc(c.marks, func(later *marking) bool {
			return later.set != 0 && later.asked > x.set && counts(later)
		}))
	})
}

// marksBegin notes the value with which a connection begins, or goes on after a resume.
func (t *fleetTruth) marksBegin(c *fleetConn) {
	value, _ := engine.Attribute[string](c.conn, "mark")
	c.marks = slices.DeleteFunc(c.marks, func(x *marking) bool { return x.set != 0 || x.failed })
	c.marks = append(c.marks, &marking{value: value, asked: t.tick(), set: t.tick(), setAt: t.f.now})
}

// marksRestored checks the value that a resume has restored. One that the session does not have stays that of the heir.
func (t *fleetTruth) marksRestored(heir, old *fleetConn) {
	firm := func(x *marking) bool { return x.set != 0 && x.value != "" && old.firm(x.setAt) }
	if slices.ContainsFunc(old.marks, firm) && !old.mayHave(heir.inheritedMark, firm) {
		t.f.complain("attributes", "%s inherits the mark %q of %s, which was overwritten or never set", heir.id, heir.inheritedMark, old.id)
	}
}
