//go:build linux

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// target is a promise of the project about a cell.
//
// Owner: immutable.
type target struct {
	server string // "": parley
	kind   targetKind
	bound  float64
}

// targetKind is the quantity that a target bounds.
type targetKind int

const (
	ratioMost   targetKind = iota // of the figure to the base's
	addedMost                     // the figure less the base's
	figureMost                    // the figure
	figureLeast                   //
	allocsMost                    // allocations, in the worst round
	reachMost                     // the time until all are done
	faultsMost                    // lost and doubled messages, in the worst round
	countedMost                   // the share of the budget of memory, in percent
	beyondMost                    // the figure less a message's frame
	resetsMost                    // members that were told of a new epoch, in the worst round
)

// of takes the quantity out of a row.
func (k targetKind) of(r row) float64 {
	return [...]float64{r.ratio, r.added, r.figure, r.figure, r.allocs, r.reach, r.faults, r.counted, r.figure - r.frame, r.resets}[k]
}

func (k targetKind) label() string {
	return [...]string{"ratio at most", "more than the base by at most", "at most", "at least", "allocations at most", "all done after ms, at most", "lost and doubled messages at most", "of the budget of memory, %, at most", "beyond its frame at most", "new epochs at most"}[k]
}

// judge says whether a row keeps the target.
func (t target) judge(r row) string {
	value := t.kind.of(r)
	switch {
	case r.runs == 0:
		return "not measured"
	case t.kind == figureLeast && value >= t.bound, t.kind != figureLeast && value <= t.bound:
		return "met"
	}
	return "missed"
}

// writeTargets writes the cell's promises beside its figures.
func writeTargets(out *strings.Builder, c cell, rows []row) {
	for _, t := range c.targets {
		name := cmp.Or(t.server, "parley")
		i := slices.IndexFunc(rows, func(r row) bool { return r.server == name })
		if i < 0 {
			continue
		}
		fmt.Fprintf(out, "Target for %s: %s %s. It has %s: **%s**.\n\n", name, t.kind.label(), bare(t.bound), bare(t.kind.of(rows[i])), t.judge(rows[i]))
	}
}

// bare writes a bound as short as it is.
func bare(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", f), "0"), ".")
}
