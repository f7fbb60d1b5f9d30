package reactor

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

func needUring(t testing.TB) *uring {
	t.Helper()
	r, err := openUring()
	if err != nil {
		t.Skip("this kernel, or its filter of system calls: ", err)
	}
	t.Cleanup(r.close)
	return r
}

func testLoop() (*turn.Loop, *bytes.Buffer) {
	log := new(bytes.Buffer)
	l := new(turn.Loop)
	l.Init(&turn.Ground{Log: slog.New(slog.NewTextHandler(log, nil))}, 0, [32]byte{})
	return l, log
}

// smallPair has a small buffer, so that the kernel takes a part.
func smallPair(t testing.TB) (ours, theirs int) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
	if err := unix.SetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<10); err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}

// What the results of a ring say is what the peers get: of whole writes, of those that the kernel takes a part of or nothing, and
// of any number in one call.
func TestUringSends(t *testing.T) {
	r := needUring(t)
	const peers = 200
	rng := rand.New(rand.NewPCG(7, 7))
	ours, theirs := make([]int, peers), make([]int, peers)
	want, got := make([][]byte, peers), make([][]byte, peers)
	for i := range peers {
		ours[i], theirs[i] = smallPair(t)
	}
	buf := make([]byte, 1<<20)
	var whole, part, none int
	for range 200 {
		order := rng.Perm(peers)[:rng.IntN(peers)]
		list := make([]turn.Send, 0, peers)
		for _, at := range order {
			p := make([]byte, 1+rng.IntN(1<<rng.IntN(16)))
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			list = append(list, turn.Send{Fd: ours[at], Bytes: p})
		}
		for rest := list; len(rest) > 0; {
			taken, err := r.send(rest)
			if err != nil || taken != min(len(rest), uringSends) {
				t.Fatal(taken, err)
			}
			rest = rest[taken:]
		}
		for i, at := range order {
			s := &list[i]
			switch {
			case s.Err == nil && s.N == len(s.Bytes):
				whole++
			case s.Err == nil && s.N > 0 && s.N < len(s.Bytes):
				part++
			case s.Err == unix.EAGAIN && s.N == 0:
				none++
			default:
				t.Fatalf("%d of %d bytes: %v", s.N, len(s.Bytes), s.Err)
			}
			want[at] = append(want[at], s.Bytes[:s.N]...)
			if rng.IntN(2) == 0 {
				n, _ := unix.Read(theirs[at], buf)
				got[at] = append(got[at], buf[:max(n, 0)]...)
			}
		}
	}
	for at := range peers {
		for n := 1; n > 0; {
			n, _ = unix.Read(theirs[at], buf)
			got[at] = append(got[at], buf[:max(n, 0)]...)
		}
		if !bytes.Equal(got[at], want[at]) {
			t.Errorf("peer %d: %d bytes were taken, %d came, or others", at, len(want[at]), len(got[at]))
		}
	}
	if whole == 0 || part == 0 || none == 0 {
		t.Errorf("%d writes were taken whole, %d in part and %d not at all: each must happen", whole, part, none)
	}
}

// A peer that is gone, or a descriptor that is none, is an error of its own write, kills nobody by a signal, and costs the others
// nothing.
func TestUringErrors(t *testing.T) {
	r := needUring(t)
	gone, theirs := smallPair(t)
	unix.Close(theirs)
	lives, reads := smallPair(t)
	list := []turn.Send{{Fd: gone, Bytes: []byte("a")}, {Fd: -1, Bytes: []byte("b")}, {Fd: lives, Bytes: []byte("c")}}
	if taken, err := r.send(list); taken != 3 || err != nil {
		t.Fatal(taken, err)
	}
	if list[0].Err != unix.EPIPE || list[1].Err != unix.EBADF || list[2].Err != nil || list[2].N != 1 {
		t.Error(list)
	}
	var buf [8]byte
	if n, _ := unix.Read(reads, buf[:]); n != 1 || buf[0] != 'c' {
		t.Error(buf[:max(n, 0)])
	}
}

// A ring that fails while the loop runs costs no byte: what it has not taken is written plainly, and so is everything later.
func TestUringFails(t *testing.T) {
	l, log := testLoop()
	h := &host{reactor: &Reactor{cfg: Config{Ground: l.Ground, Loops: []*turn.Loop{l}}}, loop: l, uring: needUring(t)}
	h.reactor.hosts = []*host{h}
	ours, theirs := smallPair(t)
	other, others := smallPair(t)
	send := func(text string) {
		list := []turn.Send{{Fd: ours, Bytes: []byte(text)}, {Fd: other, Bytes: []byte(text)}}
		h.Send(list)
		for i, fd := range []int{theirs, others} {
			var buf [8]byte
			if n, _ := unix.Read(fd, buf[:]); string(buf[:max(n, 0)]) != text || list[i].Err != nil || list[i].N != len(text) {
				t.Errorf("peer %d: %q, want %q (%+v)", i, buf[:max(n, 0)], text, list[i])
			}
		}
	}
	send("ring")
	broken := *h.uring
	broken.fd, broken.memory, broken.entries = -1, nil, nil // the test's end closes the whole one
	h.uring = &broken
	l.Together.Store(true)
	send("broken")
	send("plain")
	if l.Together.Load() || bytes.Count(log.Bytes(), []byte("io_uring has failed")) != 1 {
		t.Errorf("in a ring: %v, and the log:\n%s", l.Together.Load(), log.Bytes())
	}
}

// Each way to open the rings.
func TestOpenRings(t *testing.T) {
	needUring(t)
	for _, way := range Sends {
		l, _ := testLoop()
		h := &host{loop: l}
		h.reactor = &Reactor{cfg: Config{Ground: l.Ground, Loops: []*turn.Loop{l}, Sends: way}, hosts: []*host{h}}
		if err := h.reactor.openUrings(); err != nil {
			t.Error(way, err)
		}
		if has := h.uring != nil; has != (way != SendsPlain) || l.Together.Load() != has {
			t.Errorf("%s: a ring: %v", way, has)
		}
		h.reactor.closeUrings()
	}
}

func BenchmarkSends(b *testing.B) {
	for _, n := range []int{1, 2, 4, 16, 64, 128} {
		list := make([]turn.Send, n)
		drain := func(theirs int) {
			var buf [64 << 10]byte
			unix.Read(theirs, buf[:])
		}
		fds := make([]int, n)
		for i := range list {
			list[i].Fd, fds[i] = smallPair(b)
			list[i].Bytes = make([]byte, 150)
		}
		for name, h := range map[string]*host{"plain": {}, "ring": {uring: needUring(b)}} {
			b.Run(fmt.Sprintf("%s-%03d", name, n), func(b *testing.B) {
				for b.Loop() {
					h.Send(list)
					b.StopTimer()
					for _, fd := range fds {
						drain(fd)
					}
					b.StartTimer()
				}
			})
		}
	}
}
