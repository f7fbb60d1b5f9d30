package conformance

import (
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// Options have the server's address, and choose the cases. Only Addr is needed.
//
// Owner: immutable once Run was called.
type Options struct {
	// Addr is host:port of a plain TCP WebSocket echo server that takes any request path, sends nothing of
	// its own, and accepts messages of 16 MB (1 MB with Short).
	Addr string
	// Compression runs the cases of permessage-deflate (12.*, 13.*, X.3.*). A server that declines an offer then fails that
	// case.
	Compression bool
	// Chunk is how many octets go out in one write: 0 leaves it to the case; 1 puts each octet in a write
	// of its own. Cases that send 4 KB or more are cut no finer than 997.
	Chunk int
	// Filter, unless it is nil, chooses the cases by their names ("§5.5 case 2.5 ping with payload of 126").
	Filter func(name string) bool
	// Short leaves out the cases of family 9 above 1 MB, and cuts 12.* and 13.* to a few messages each.
	Short bool
	// Full sends the 1,000 messages of every case of 12.* and 13.*, as the public suite does: 11 GB in all, which takes
	// minutes. Otherwise a case ends after 1 MB, but never before 16 messages.
	Full bool
	// Deadline is for a case that sends less than 64 KB; larger ones have six times that. 0 means 5 s. It stretches on a
	// busy machine.
	Deadline time.Duration
}

const (
	octetwiseBytesMax = 4096
	chunkBytesMin     = 997
	largeBytesMin     = 64 << 10
	shortBytesMax     = 1<<20 + 1<<10 // of one message and its headers
)

// Run plays the suite against the server at o.Addr, each case as a parallel subtest on a connection of its own, and
// returns when all have ended. The test's goroutine must call it.
func Run(t *testing.T, o Options) {
	t.Helper()
	all := rows()
	chosen := o.choose(all)
	t.Logf("conformance: %d of %d cases, chunk %d", len(chosen), len(all), o.Chunk)
	// The group ends after its parallel subtests.
	t.Run("conformance", func(t *testing.T) {
		for _, r := range chosen {
			t.Run(r.name(), func(t *testing.T) {
				t.Parallel()
				switch err := play(o, r); err {
				case nil:
				case errMoot:
					t.Skip(err)
				default:
					t.Error(err)
				}
			})
		}
	})
}

// choose leaves out the rows that the options exclude.
func (o Options) choose(all []row) []row {
	var chosen []row
	for _, r := range all {
		switch {
		case r.offer != "" && !o.Compression:
		case o.Short && r.family() == "9" && r.rounds == nil && r.size() > shortBytesMax:
		case o.Filter != nil && !o.Filter(r.name()):
		default:
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// chunkFor is the size of a write for r.
func (o Options) chunkFor(r row) int {
	if o.Chunk > 0 && o.Chunk < chunkBytesMin && r.size() >= octetwiseBytesMax {
		return chunkBytesMin
	}
	return o.Chunk
}

// deadlineFor is when r must be over, if it begins now.
func (o Options) deadlineFor(r row, now time.Time) time.Time {
	d := o.Deadline
	if d == 0 {
		d = 5 * time.Second
	}
	if r.size() >= largeBytesMin {
		d *= 6
	}
	if o.Full && r.rounds != nil {
		d *= 20
	}
	return now.Add(canary.Stretch(d))
}

// messagesFor is how many messages a conversation in lockstep has: the public suite's number if they are not compressed,
// since then they are cheap.
func (o Options) messagesFor(r row) int {
	count, size := r.rounds.count, r.rounds.size
	switch {
	case o.Full || size == 0:
		return count
	case o.Short:
		return min(count, max(4, 128<<10/size))
	case r.offer == "":
		return count
	}
	return min(count, max(16, 1<<20/size))
}
