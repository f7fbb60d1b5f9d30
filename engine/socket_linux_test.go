package engine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Every accepted socket sends at once, and hides little of a slow reader's backlog: the latter is not inherited
// from the listener, and is set for each.
func TestSocketOptions(t *testing.T) {
	s := startServer(t, nil, nil)
	c := s.Connection(dial(t, s).id)
	done := make(chan [2]int, 1)
	c.loop().PostCall(func() {
		nodelay, _ := unix.GetsockoptInt(int(c.wire.Fd), unix.IPPROTO_TCP, unix.TCP_NODELAY)
		lowat, _ := unix.GetsockoptInt(int(c.wire.Fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT)
		done <- [2]int{nodelay, lowat}
	})
	eventually(t, "the loop looks", func() bool { return len(done) == 1 })
	if got := <-done; got != [2]int{1, 16 << 10} {
		t.Error("TCP_NODELAY and TCP_NOTSENT_LOWAT are", got)
	}
}
