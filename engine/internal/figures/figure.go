package figures

import (
	"cmp"
	"iter"

	"github.com/parleyd/parley/engine/internal/session"
)

// Kind says how a figure changes, and so how the figures of several workers are combined.
type Kind uint8

// The kinds of figures.
const (
	Counter   Kind = iota // only grows; the sum keeps the counts of workers that are gone
	Histogram             // counters, one for each range of durations
	Gauge                 // the present value; the sum over the live workers
	Highest               // a gauge; the highest value of all workers, not the sum
)

// counts reports whether a sum keeps the figure of a worker that is gone.
func (k Kind) counts() bool { return k <= Histogram }

// Figure describes one number that a server counts or measures and keeps in an S. /stats, /metrics, the sums over workers
// and docs/metrics.md are made from tables of figures.
//
// Owner: immutable.
type Figure[S any] struct {
	Key    string // in /stats; "" if it is made from several
	Metric string // in /metrics, behind the prefix parley_; "" if it has none of its own
	Kind   Kind
	Help   string
	Label  string  // of the metric, if the figure is a map by its values
	Per    float64 // how many of the field's units make one of the metric's; 0 means 1

	field func(*S) any                    // a pointer to the figure's field, or its value, or nil if it is unknown
	read  func(*Source) uint64            // nil: StatsHere reads it, or package cluster
	table func(*Source) map[string]uint64 // of a figure with a label, in place of read

	bounds []float64       // of a histogram: the upper bounds of its ranges in seconds, except for the last one's
	micros func(*S) uint64 // of a histogram: the sum of its durations
}

// Durations reads a histogram: how many durations are at most as long as each bound, in seconds; how many there are, and their
// sum in seconds.
func (f *Figure[S]) Durations(s *S) (buckets map[float64]uint64, count uint64, sum float64) {
	buckets = make(map[float64]uint64, len(f.bounds))
	for i, n := range ranges(f.field(s)) {
		if count += n; i < len(f.bounds) {
			buckets[f.bounds[i]] = count
		}
	}
	return buckets, count, float64(f.micros(s)) / 1e6
}

// ranges are the counts of a histogram's field.
func ranges(field any) []uint64 {
	switch counts := field.(type) {
	case *[len(session.SaveSecondsBounds) + 1]uint64:
		return counts[:]
	case *Waits:
		return counts[:]
	}
	return nil
}

// Values yields the figure's values in the metric's unit, by label if it has one; none if it is unknown or a histogram.
func (f *Figure[S]) Values(s *S) iter.Seq2[string, float64] {
	per := cmp.Or(f.Per, 1)
	return func(yield func(string, float64) bool) {
		switch v := f.field(s).(type) {
		case *int:
			yield("", float64(*v)/per)
		case *int64:
			yield("", float64(*v)/per)
		case *uint64:
			yield("", float64(*v)/per)
		case bool:
			n := 0.
			if v {
				n = 1
			}
			yield("", n)
		case *map[string]uint64:
			for label, n := range *v {
				if !yield(label, float64(n)/per) {
					return
				}
			}
		}
	}
}

// store sets the field that a figure points to.
func store(field any, n uint64) {
	switch to := field.(type) {
	case *int:
		*to = int(n)
	case *int64:
		*to = int64(n)
	case *uint64:
		*to = n
	}
}

// sum adds the same figure of another worker to a field.
func sum(into, from any, kind Kind) {
	switch to := into.(type) {
	case *int:
		*to = together(*to, *from.(*int), kind)
	case *int64:
		*to = together(*to, *from.(*int64), kind)
	case *uint64:
		*to = together(*to, *from.(*uint64), kind)
	case *[len(session.SaveSecondsBounds) + 1]uint64, *Waits:
		into, from := ranges(into), ranges(from)
		for i, n := range from {
			into[i] += n
		}
	case *map[string]uint64:
		if *to == nil {
			*to = map[string]uint64{}
		}
		for label, n := range *from.(*map[string]uint64) {
			(*to)[label] += n
		}
	}
}

func together[N int | int64 | uint64](a, b N, kind Kind) N {
	if kind == Highest {
		return max(a, b)
	}
	return a + b
}
