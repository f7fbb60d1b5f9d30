package api

import (
	"net/netip"
	"sync"
	"time"
)

const (
	failuresMax     = 20
	failuresSpan    = time.Minute // in which they count, and for which an address with as many is refused
	failuresKeptMax = 1 << 15     // addresses
)

// failures limits how often an address may fail to authenticate. It keeps a bounded number of addresses: a new one takes the
// place of the one that failed first.
//
// Owner: shared (mutex: mu).
type failures struct {
	mu    sync.Mutex
	known map[netip.Addr]*failure
	order []netip.Addr // a ring, in the order of first failures
	next  int          // the ring's place for the next address
}

// failure is what is known of an address.
type failure struct {
	count int
	until time.Time // while it is open: the end of the span in which failures count, or of the refusal
}

// blockOf is the part of an address that one customer has: an IPv6 network of 64 bits, or a whole IPv4 address.
func blockOf(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		return netip.PrefixFrom(a, 64).Masked().Addr()
	}
	return a
}

// refused returns for how long an address is refused; 0 if it is not.
func (f *failures) refused(a netip.Addr, now time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.known) == 0 {
		return 0 // the usual case
	}
	if one := f.known[blockOf(a)]; one != nil && one.count >= failuresMax && now.Before(one.until) {
		return one.until.Sub(now)
	}
	return 0
}

// add notes a failure. The failure that fills the measure begins a refusal.
func (f *failures) add(a netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a = blockOf(a)
	one := f.known[a]
	if one == nil {
		one = &failure{}
		f.keep(a, one)
	}
	if !now.Before(one.until) {
		*one = failure{until: now.Add(failuresSpan)}
	}
	if one.count++; one.count == failuresMax {
		one.until = now.Add(failuresSpan)
	}
}

// keep puts an address into the ring, in the place of another if the ring is full.
func (f *failures) keep(a netip.Addr, one *failure) {
	if f.known == nil {
		f.known = map[netip.Addr]*failure{}
	}
	if len(f.order) < failuresKeptMax {
		f.order = append(f.order, a)
	} else {
		delete(f.known, f.order[f.next])
		f.order[f.next] = a
		f.next = (f.next + 1) % failuresKeptMax
	}
	f.known[a] = one
}
