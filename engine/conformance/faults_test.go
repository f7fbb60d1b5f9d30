package conformance

import (
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// planted is every fault that the reference can have, with the cases that must catch it and those that
// may fail beside them, as patterns in the manner of path.Match. Whatever else fails is a false alarm.
var planted = []struct{ fault, caught, beside string }{
	{"reserved bits pass", "3.* X.3.1 X.3.2 X.3.3 X.3.4", ""},
	{"reserved opcodes pass", "4.*", ""},
	{"unmasked passes", "X.1.1 X.1.2 X.1.3", ""},
	{"control in fragments passes", "5.1 5.2 X.1.9 X.2.2", ""},
	{"large control passes", "2.5 7.3.6 X.1.8", ""},
	{"stray continuation passes", "5.9 5.1[0-7]", ""},
	{"new message passes", "5.18", ""},
	{"control ends a message", "5.[678] 5.19 5.20 X.1.10 X.3.9", "X.2.3 7.1.5"},
	{"pong after the message", "5.[678] 5.19 5.20 X.1.10 X.3.9", ""},
	{"empty pongs", "2.[234] 2.6 2.9 2.1[01] 5.[678] 5.19 5.20 X.1.10 X.2.4 X.3.9", ""},
	{"one pong for many", "2.10 X.1.10 X.2.4", "2.* 5.[678] 5.19 5.20 X.3.9"},
	{"answers pongs", "2.7 2.8 2.9", ""},
	{"no UTF-8 check", "6.3.1 6.3.2 6.4.* 6.6.1 6.6.10 6.8.* 6.10.* 6.11.5 6.1[2-9].* 6.2[01].* X.2.3 X.3.6", "6.6.*"},
	{"UTF-8 checked at the end", "6.4.[1234] X.2.3", ""},
	{"close text unchecked", "7.5.1", ""},
	{"half a code passes", "7.3.2", ""},
	{"1005 passes", "7.9.4", ""},
	{"1016 passes", "7.9.6", ""},
	{"1005 on the wire", "7.3.1", ""},
	{"goes on after close", "7.1.[23456]", "2.7 2.8 7.* X.2.4 1.* 2.* 3.* 4.* 5.* 6.* 10.* X.*"},
	{"never ends the stream", "*", "*"},
	{"no close frame", "*", "*"},
	{"masks", "*", "*"},
	{"long lengths", "1.*.1 1.*.2 2.* 3.* 4.* 5.*", "*"},
	{"long lengths pass", "X.1.4 X.1.5", ""},
	{"65535 in 64 bits", "1.1.6 1.2.6", ""},
	{"text comes back as binary", "1.1.* 5.[345678] 6.1.1 6.2.*", "*"},
	{"echo loses its last octet above 64 KB", "7.1.6 9.2.2", "1.* 9.*"},
	{"context kept", "13.[2567].4", "13.[2567].*"},
	{"window overrun", "13.[357].4", "13.[357].*"},
	{"client's context lost", "12.*.4 13.*.4 X.3.10 X.3.11", "12.* 13.* X.3.17"},
	{"never compresses", "X.3.17", ""},
	{"accepts nonsense", "X.3.1[89] X.3.2[0123]", ""},
	{"RSV2 passes with deflate", "X.3.3", ""},
}

// proof is the cases that faults are held against: everything small, and of each large family one.
func proof(r row) bool {
	switch r.family() {
	case "9":
		return r.number == "9.2.2"
	case "12", "13":
		return strings.HasSuffix(r.number, ".4")
	}
	return true
}

// TestPlantedFaults shows that the suite can fail: each fault is caught by the cases that are there for it,
// and sets off no others.
func TestPlantedFaults(t *testing.T) {
	for _, p := range planted {
		t.Run(p.fault, func(t *testing.T) {
			t.Parallel()
			failed := failures(startReference(t, p.fault))
			if len(failed) == 0 {
				t.Fatal("no case noticed")
			}
			for _, r := range slices.DeleteFunc(rows(), func(r row) bool { return !proof(r) }) {
				err := failed[r.number]
				switch {
				case covers(p.caught, r.number) && err == nil:
					t.Errorf("case %s %s passes", r.number, r.title)
				case err != nil && !covers(p.caught, r.number) && !covers(p.beside, r.number):
					t.Errorf("a false alarm:\n%v", err)
				}
			}
		})
	}
}

// covers is whether one of the patterns matches number. A star stands for any numbers there.
func covers(patterns, number string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(pattern string) bool {
		matched, err := path.Match(pattern, number)
		if err != nil {
			panic(err)
		}
		return matched
	})
}

// failures plays the proof on a few connections at a time: most that fails waits for its deadline.
func failures(addr string) map[string]error {
	o := Options{Addr: addr, Compression: true, Short: true, Deadline: faultDeadline}
	failed, mu, seats, players := map[string]error{}, sync.Mutex{}, make(chan struct{}, 32), sync.WaitGroup{}
	for _, r := range o.choose(rows()) {
		if !proof(r) {
			continue
		}
		seats <- struct{}{}
		players.Go(func() {
			defer func() { <-seats }()
			if err := play(o, r); err != nil && !errors.Is(err, errMoot) {
				mu.Lock()
				defer mu.Unlock()
				failed[r.number] = err
			}
		})
	}
	players.Wait()
	return failed
}

// faultDeadline is long enough that a case which passes does so on a busy machine.
const faultDeadline = 3 * time.Second

// TestHarmlessTerms plays the compression cases against servers that negotiate in other, legal ways.
func TestHarmlessTerms(t *testing.T) {
	for _, terms := range []string{"small client window", "client forgets"} {
		t.Run(terms, func(t *testing.T) {
			Run(t, Options{Addr: startReference(t, terms), Compression: true, Short: true,
				Filter: func(name string) bool { return strings.HasPrefix(name, "§7692") }})
		})
	}
}
