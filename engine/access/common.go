package access

import (
	"hash/maphash"
	"sync"
	"weak"
)

const (
	commonBuckets = 512
	commonWays    = 4
)

// commonSeed keeps strangers from choosing a bucket.
var commonSeed = maphash.MakeSeed()

// common finds rights that are in memory, so that tokens with the same patterns, as most tokens of a service have, share them. It has a
// fixed size and keeps nothing in memory by itself: what a token says can neither make it grow nor fill it for good. Rights that it has
// lost for others are in memory once more, and mean the same. The zero value is ready. Any goroutine.
//
// Owner: shared (mutex: mu).
type common struct {
	mu      sync.Mutex // for some comparisons; only goroutines that verify tokens take it
	buckets [commonBuckets][commonWays]weak.Pointer[Rights]
	next    uint8 // the way that is given up where all are in use
}

// share returns rights that are equal to r: r itself, unless others are found.
func (x *common) share(r *Rights) *Rights {
	var at maphash.Hash
	at.SetSeed(commonSeed)
	for _, set := range r.patterns {
		set.Hash(&at)
		at.WriteByte(0xfe) // the end of a set
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	bucket := &x.buckets[at.Sum64()%commonBuckets]
	free := -1
	for i := range bucket {
		switch found := bucket[i].Value(); {
		case found == nil:
			free = i
		case found.equal(r):
			return found
		}
	}
	if free < 0 {
		free = int(x.next % commonWays)
		x.next++
	}
	bucket[free] = weak.Make(r)
	return r
}

// equal reports whether both allow the same for the same reasons: each list has the same patterns in the same order.
func (r *Rights) equal(other *Rights) bool {
	for what := range r.patterns {
		if !r.patterns[what].Equal(other.patterns[what]) {
			return false
		}
	}
	return true
}
