package api

import (
	"net/netip"
	"testing"
	"time"
)

var noon = time.Date(2027, 1, 2, 12, 0, 0, 0, time.UTC)

// The twentieth failure within a minute begins a minute of refusal; then the address begins anew.
func TestFailures(t *testing.T) {
	var f failures
	a, b := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.10")
	for i := range failuresMax {
		if wait := f.refused(a, noon); wait != 0 {
			t.Fatalf("refused for %v after %d failures", wait, i)
		}
		f.add(a, noon.Add(time.Duration(i)*time.Second))
	}
	last := noon.Add((failuresMax - 1) * time.Second)
	if wait := f.refused(a, last); wait != time.Minute {
		t.Errorf("refused for %v", wait)
	}
	if f.refused(b, last) != 0 {
		t.Error("the neighbour is refused, too")
	}
	if f.refused(netip.MustParseAddr("::ffff:203.0.113.9"), last) == 0 {
		t.Error("the same address in its IPv6 form is not refused")
	}
	f.add(a, last.Add(time.Second)) // a failure that was on its way does not lengthen it
	if wait := f.refused(a, last.Add(time.Minute)); wait != 0 {
		t.Errorf("still refused for %v", wait)
	}
	f.add(a, last.Add(time.Minute))
	if f.refused(a, last.Add(time.Minute)) != 0 {
		t.Error("refused after one failure")
	}
}

// Failures that are spread over more than a minute are none too many.
func TestFailuresAgeOut(t *testing.T) {
	var f failures
	a := netip.MustParseAddr("203.0.113.9")
	for i := range 10 * failuresMax {
		now := noon.Add(time.Duration(i) * time.Minute / (failuresMax - 1))
		if f.refused(a, now) != 0 {
			t.Fatalf("refused after %d", i)
		}
		f.add(a, now)
	}
}

// A network of 64 bits of IPv6 counts as one address.
func TestFailuresOfNetworks(t *testing.T) {
	var f failures
	for i := range failuresMax {
		f.add(netip.AddrFrom16([16]byte{0x20, 1, 7: 5, 15: byte(i)}), noon)
	}
	if f.refused(netip.AddrFrom16([16]byte{0x20, 1, 7: 5, 8: 9}), noon) == 0 {
		t.Error("another address of the network is not refused")
	}
	if f.refused(netip.AddrFrom16([16]byte{0x20, 1, 7: 6}), noon) != 0 {
		t.Error("the next network is refused, too")
	}
	f = failures{}
	for range failuresMax {
		f.add(netip.MustParseAddr("fe80::1%eth0"), noon)
	}
	if f.refused(netip.MustParseAddr("fe80::1%eth1"), noon) == 0 {
		t.Error("a zone makes another address")
	}
}

// However many addresses fail, a bounded number is kept, and the newest are among them.
func TestFailuresAreBounded(t *testing.T) {
	var f failures
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	for i := range 100_000 {
		f.add(address(i), noon)
	}
	if len(f.known) != failuresKeptMax || len(f.order) != failuresKeptMax || f.known[address(99_999)] == nil || f.known[address(0)] != nil {
		t.Errorf("%d addresses, a ring of %d", len(f.known), len(f.order))
	}
}
