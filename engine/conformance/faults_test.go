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

// planted are the faults that the reference can have, each with the cases that must catch it and those that may also fail,
// as patterns like those of path.Match. Any other case that fails is a false alarm. A fault that no case can miss names
// none, and is played with the everyday cases only.
var planted = []struct{ fault, caught, beside string }{
	{"reserved bits pass", "3.* X.3.1 X.3.2 X.3.3 X.3.4", ""},
	{"reserved opcodes pass", "4.*", ""},
	{"unmasked passes", "X.1.1 X.1.2 X.1.3", ""},
	{"control in fragments passes", "5.1 X.1.9 X.2.2", ""},
	{"large control passes", "2.5 7.3.6 X.1.8", ""},
	{"stray continuation passes", "5.9 5.1[017]", ""},
	{"new message passes", "5.18", ""},
	// Two violations in one conversation: a server that misses one of them still refuses the other.
	{"control in fragments passes + stray continuation passes", "5.1 5.2 5.9 5.1[01]", "5.17 X.1.9 X.2.2"},
	{"stray continuation passes + new message passes", "5.9 5.1[0-8]", ""},
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
	{"goes on after close", "7.1.[2345]", "7.1.6"},
	{"5000 passes", "7.13.*", ""},
	{"3000 fails", "7.7.10", ""},
	{"failing drops what is owed", "3.2 4.[12].[34] 5.15 7.1.6 X.2.4", "3.[34] 4.*.5"},
	{"any length passes", "X.1.7", ""},
	{"header judged late", "X.1.8 X.1.9", "X.1.[123]"},
	{"never ends the stream", "", ""},
	{"no close frame", "", ""},
	{"masks", "", ""},
	{"long lengths", "", ""},
	{"long lengths pass", "X.1.4 X.1.5", ""},
	{"65535 in 64 bits", "1.1.6 1.2.6", ""},
	{"text comes back as binary", "1.1.* 5.[345678] 5.19 5.20 6.1.* 6.2.* 9.1.2 10.1.1 12.[14].4 13.*", "*"},
	{"echo loses its last octet above 64 KB", "7.1.6 9.[12].2", ""},
	{"context kept", "13.[2567].4", ""},
	{"window overrun", "13.[357].4", ""},
	{"client's context lost", "12.*.4 13.*.4 X.3.10 X.3.11", "X.3.17"},
	{"broken deflate passes", "X.3.5 X.3.7", ""},
	{"never compresses", "X.3.17", ""},
	{"accepts nonsense", "X.3.1[89] X.3.2[0123]", ""},
	{"RSV2 passes with deflate", "X.3.3", ""},
}

// everyday are the cases for a fault that shows everywhere: each way to end a connection once.
const everyday = "1.1.2 2.2 2.5 5.3 6.3.1 7.1.2 7.9.1"

// proof are the cases for the other faults: all small ones, and some of the large ones.
func proof(r row) bool {
	switch r.family() {
	case "9":
		return r.number == "9.1.2" || r.number == "9.2.2"
	case "12", "13":
		return strings.HasSuffix(r.number, ".4")
	}
	return true
}

// TestPlantedFaults shows that the suite can fail: each fault is caught by the cases for it, and fails no others.
func TestPlantedFaults(t *testing.T) {
	// Most cases that fail wait for their deadlines: so all faults run at once.
	seats, running := make(chan struct{}, 64), sync.WaitGroup{}
	failed := make([]map[string]error, len(planted))
	for i, p := range planted {
		addr := startReference(t, strings.Split(p.fault, " + ")...)
		running.Go(func() {
			failed[i] = failures(addr, seats, func(r row) bool {
				return proof(r) && (p.caught != "" || covers(everyday, r.number))
			})
		})
	}
	running.Wait()
	for i, p := range planted {
		t.Run(p.fault, func(t *testing.T) {
			if p.caught == "" {
				p.caught = everyday
			}
			checkCaught(t, p.caught, p.beside, failed[i])
		})
	}
}

func checkCaught(t *testing.T, caught, beside string, failed map[string]error) {
	t.Helper()
	for _, r := range rows() {
		err := failed[r.number]
		switch due := proof(r) && covers(caught, r.number); {
		case due && err == nil:
			t.Errorf("case %s %s passes", r.number, r.title)
		case err != nil && !due && !covers(beside, r.number):
			t.Errorf("a false alarm:\n%v", err)
		}
	}
}

// covers reports whether one of the patterns matches number. A star stands for any numbers there.
func covers(patterns, number string) bool {
	return slices.ContainsFunc(strings.Fields(patterns), func(pattern string) bool {
		matched, err := path.Match(pattern, number)
		if err != nil {
			panic(err)
		}
		return matched
	})
}

// failures plays the chosen rows, each on a seat, and returns those that fail.
func failures(addr string, seats chan struct{}, chosen func(row) bool) map[string]error {
	o := Options{Addr: addr, Compression: true, Short: true, Deadline: faultDeadline}
	failed, mu, players := map[string]error{}, sync.Mutex{}, sync.WaitGroup{}
	for _, r := range o.choose(rows()) {
		if !chosen(r) {
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

// faultDeadline is long enough for a case that passes; on a busy machine it stretches.
const faultDeadline = 2 * time.Second

// TestHarmlessTerms plays the compression cases against servers that negotiate in other, legal ways.
func TestHarmlessTerms(t *testing.T) {
	for _, terms := range []string{"small client window", "client forgets"} {
		t.Run(terms, func(t *testing.T) {
			Run(t, Options{Addr: startReference(t, terms), Compression: true, Short: true,
				Filter: func(name string) bool {
					return strings.Contains(name, "case 13.1.") || strings.Contains(name, "case X.3.")
				}})
		})
	}
}
