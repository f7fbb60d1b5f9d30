package conformance

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestCounts compares the number of cases with the public suite's.
func TestCounts(t *testing.T) {
	want := map[string]int{"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1, "12": 90, "13": 126}
	sub := map[string]int{
		"6.1": 3, "6.2": 4, "6.3": 2, "6.4": 4, "6.5": 5, "6.6": 11, "6.7": 4, "6.8": 2, "6.9": 4, "6.10": 3, "6.11": 5,
		"6.12": 8, "6.13": 5, "6.14": 10, "6.15": 1, "6.16": 3, "6.17": 5, "6.18": 5, "6.19": 5, "6.20": 7, "6.21": 8,
		"6.22": 34, "6.23": 7, "7.1": 6, "7.3": 6, "7.5": 1, "7.7": 13, "7.9": 9, "7.13": 2,
		"9.1": 6, "9.2": 6, "9.3": 9, "9.4": 9, "9.5": 6, "9.6": 6, "9.7": 6, "9.8": 6,
	}
	got, seen, public := map[string]int{}, map[string]bool{}, 0
	for _, r := range rows() {
		if seen[r.number] {
			t.Errorf("case %s is there twice", r.number)
		}
		seen[r.number] = true
		if r.family() != "X" {
			public++
		}
		got[r.family()]++
		if strings.Count(r.number, ".") == 2 {
			got[r.number[:strings.LastIndexByte(r.number, '.')]]++
		}
	}
	for family, n := range want {
		if got[family] != n {
			t.Errorf("family %s has %d cases, the public suite %d", family, got[family], n)
		}
	}
	for family, n := range sub {
		if got[family] != n {
			t.Errorf("family %s has %d cases, the public suite %d", family, got[family], n)
		}
	}
	if public != 517 {
		t.Errorf("%d public cases, want 517", public)
	}
}

// TestUTF8Claims compares the table with unicode/utf8.
func TestUTF8Claims(t *testing.T) {
	for i, group := range utf8Groups() {
		for j, s := range group.sequences {
			valid := utf8.ValidString(s)
			if group.valid == allOf && !valid || group.valid == noneOf && valid {
				t.Errorf("6.%d.%d: %x: the table and unicode/utf8 disagree", i+5, j+1, s)
			}
		}
	}
}

// TestReference plays all cases against the strict reference; chopped, or with -short, only some of each large family.
func TestReference(t *testing.T) {
	addr := startReference(t)
	for _, chunk := range []int{0, 1, 997} {
		t.Run(fmt.Sprintf("chunk %d", chunk), func(t *testing.T) {
			o := Options{Addr: addr, Compression: true, Chunk: chunk}
			if chunk != 0 || testing.Short() {
				o.Short, o.Filter = true, sample
			}
			Run(t, o)
		})
	}
}

// sample omits most cases of 12 and 13.
func sample(name string) bool {
	_, number, _ := strings.Cut(name, " case ")
	number, _, _ = strings.Cut(number, " ")
	return !covers("12.* 13.*", number) || covers("12.*.4 12.*.12 13.*.4 13.*.12 13.*.18", number)
}

// TestServer plays all cases against any server: PARLEY_CONFORMANCE_ADDR=host:port go test -run TestServer. So the suite was
// checked against other implementations.
func TestServer(t *testing.T) {
	addr := os.Getenv("PARLEY_CONFORMANCE_ADDR")
	if addr == "" {
		t.Skip("PARLEY_CONFORMANCE_ADDR is not set")
	}
	Run(t, Options{Addr: addr, Compression: true, Short: testing.Short()})
}
