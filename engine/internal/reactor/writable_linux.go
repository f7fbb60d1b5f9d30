package reactor

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// writableWatch tells loops when the kernel takes bytes again for connections that it refused. gnet's own
// epoll watches for input only; a second one, one-shot, watches the few connections that are blocked.
//
// Owner: shared (the kernel's epoll).
type writableWatch struct {
	loops []*turn.Loop
	epoll int
	quit  int // an eventfd
	ended chan struct{}
}

func startWritableWatch(loops []*turn.Loop) (*writableWatch, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make epoll: %w", err)
	}
	quit, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("make eventfd: %w", err)
	}
	w := &writableWatch{loops: loops, epoll: epoll, quit: quit, ended: make(chan struct{})}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, quit, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return nil, fmt.Errorf("watch eventfd: %w", err)
	}
	go w.run()
	return w, nil
}

// watch has letterWritable posted once c's descriptor takes bytes. Loop-only.
func (w *writableWatch) watch(c *turn.Conn) {
	ev := unix.EpollEvent{
		Events: unix.EPOLLOUT | unix.EPOLLONESHOT,
		Fd:     int32(uint32(c.Loop.Index)<<24 | c.Slot), // loop and slot; the generation's low bits follow
		Pad:    int32(uint32(c.Gen)),
	}
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_MOD, int(c.Fd), &ev)
	if err == unix.ENOENT {
		err = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, int(c.Fd), &ev)
	}
	if err != nil {
		c.Lose() // nobody would ever write to it again
	}
}

func (w *writableWatch) run() {
	defer close(w.ended)
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(w.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, ev := range events[:max(n, 0)] {
			if ev.Fd == -1 {
				return
			}
			where := uint32(ev.Fd)
			l := w.loops[where>>24]
			if c := l.Slab.At(where & (turn.SlotsMax - 1)); c != nil && uint32(c.Gen) == uint32(ev.Pad) {
				l.Post(turn.Letter{Kind: turn.LetterWritable, Conn: c})
			}
		}
	}
}

func (w *writableWatch) stop() {
	one := [8]byte{1}
	unix.Write(w.quit, one[:])
	<-w.ended
	unix.Close(w.epoll)
	unix.Close(w.quit)
}
