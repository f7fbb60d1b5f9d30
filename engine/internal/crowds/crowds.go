// Package crowds counts the connections of each client's address.
//
// What it refuses to do: it knows no connection. A caller that has entered an address leaves it once.
//
// An IPv6 address counts as its network of 64 bits: that is the least that one subscriber gets, and may choose addresses in.
//
// What lost: a table for each loop, which would need no lock. An address has connections on all loops; and a look at a map,
// once when a connection comes and once when it goes, is no contention, since accepting one costs the kernel far more.
//
// Start reading at Table.Enter.
package crowds

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Table has the number of connections of each address that has any. The zero value counts none. Any goroutine.
//
// Owner: shared (mutex: mu).
type Table struct {
	Max atomic.Int64 // of an address; 0: they are not counted

	mu   sync.Mutex
	live map[key]uint32 // without zeros
}

// key is an IPv4 address, or the upper half of an IPv6 address. No client's IPv6 address begins with 32 bits of zeros, as the
// keys of IPv4 addresses do.
type key uint64

// translated are the IPv4 clients of a server that has IPv6 only [RFC 6052 §2.1].
var translated = netip.MustParsePrefix("64:ff9b::/96")

func keyOf(a netip.Addr) key {
	a = a.Unmap().WithZone("")
	if a.Is4() {
		b := a.As4()
		return key(binary.BigEndian.Uint32(b[:]))
	}
	b := a.As16()
	if translated.Contains(a) {
		return key(binary.BigEndian.Uint32(b[12:]))
	}
	return key(binary.BigEndian.Uint64(b[:8]))
}

// Enter counts a connection of an address, unless the address has as many as may be.
func (x *Table) Enter(a netip.Addr) bool {
	k, most := keyOf(a), x.Max.Load()
	x.mu.Lock()
	defer x.mu.Unlock()
	if int64(x.live[k]) >= most {
		return false
	}
	if x.live == nil {
		x.live = map[key]uint32{}
	}
	x.live[k]++
	return true
}

// Leave takes back what Enter has counted.
func (x *Table) Leave(a netip.Addr) {
	k := keyOf(a)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.live[k]--; x.live[k] == 0 {
		delete(x.live, k)
	}
}

// Addresses is the number of addresses that have connections.
func (x *Table) Addresses() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.live)
}
