package settings

import (
	"fmt"
	"reflect"
	"slices"
	"time"
)

// Number is a numeric setting with its least and its greatest value. A greater value would wrap where the engine keeps 32
// bits, or would overflow.
//
// Owner: immutable.
type Number struct {
	Key                string
	Value, Least, Most int
}

// Duration is a setting that is a time.
type Duration struct {
	Key   string
	Value time.Duration
}

// DurationMost is the longest time, 31 years; added to the time it stays one.
const DurationMost = 1_000_000_000 * time.Second

// CheckNumbers describes the first number or time outside its range, and names its key; "" for none.
func CheckNumbers(numbers []Number, times []Duration) (key, hint string) {
	for _, n := range numbers {
		switch {
		case n.Value < 0 && n.Value < n.Least:
			return n.Key, fmt.Sprintf("%d is negative", n.Value)
		case n.Value < n.Least:
			return n.Key, fmt.Sprintf("%d is too small; give %d to %d", n.Value, n.Least, n.Most)
		case n.Value > n.Most:
			return n.Key, fmt.Sprintf("%d is too large; give at most %d", n.Value, n.Most)
		}
	}
	for _, t := range times {
		switch {
		case t.Value > DurationMost:
			return t.Key, fmt.Sprintf("%v is too long; give at most %.0f seconds", t.Value, DurationMost.Seconds())
		case t.Value < 0:
			return t.Key, fmt.Sprintf("%v is negative; give a number of seconds", t.Value)
		}
	}
	return "", ""
}

// FillZero gives the fields of a struct that have the zero value those of standard.
func FillZero[T any](fields *T, standard T) {
	into, from := reflect.ValueOf(fields).Elem(), reflect.ValueOf(standard)
	for i := range into.NumField() {
		if into.Field(i).IsZero() {
			into.Field(i).Set(from.Field(i))
		}
	}
}

// Tune takes the fields of from whose keys are listed, and returns the keys of the others that differ. A field with the key "-" is
// no setting.
func Tune[T any](fields *T, from T, tunable []string) (fixed []string) {
	into, given := reflect.ValueOf(fields).Elem(), reflect.ValueOf(from)
	for i := range into.NumField() {
		if key := into.Type().Field(i).Tag.Get("key"); slices.Contains(tunable, key) {
			into.Field(i).Set(given.Field(i))
		} else if !reflect.DeepEqual(into.Field(i).Interface(), given.Field(i).Interface()) && key != "-" {
			fixed = append(fixed, key)
		}
	}
	return fixed
}

// Or gives a field that has the zero value another one.
func Or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Unsay sets a field that has its default to zero, which means not set.
func Unsay(field *int, standard int) {
	if *field == standard {
		*field = 0
	}
}
