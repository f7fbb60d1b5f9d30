//go:build !linux

package reactor

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// writableWatch tells loops when the kernel takes bytes again for connections that it refused, by a
// kqueue beside gnet's own.
//
// Owner: shared (mutex: mu).
type writableWatch struct {
	loops []*turn.Loop
	queue int
	pipe  [2]int
	ended chan struct{}

	mu      sync.Mutex
	waiting map[int]*turn.Conn
}

func startWritableWatch(loops []*turn.Loop) (*writableWatch, error) {
	queue, err := unix.Kqueue()
	if err != nil {
		return nil, fmt.Errorf("make kqueue: %w", err)
	}
	w := &writableWatch{loops: loops, queue: queue, ended: make(chan struct{}), waiting: make(map[int]*turn.Conn)}
	if err := unix.Pipe(w.pipe[:]); err != nil {
		unix.Close(queue)
		return nil, fmt.Errorf("make pipe: %w", err)
	}
	if err := w.change(w.pipe[0], unix.EVFILT_READ, unix.EV_ADD); err != nil {
		return nil, fmt.Errorf("watch pipe: %w", err)
	}
	go w.run()
	return w, nil
}

func (w *writableWatch) change(fd, filter, flags int) error {
	var ev unix.Kevent_t
	unix.SetKevent(&ev, fd, filter, flags)
	_, err := unix.Kevent(w.queue, []unix.Kevent_t{ev}, nil, nil)
	return err
}

// watch has letterWritable posted once c's descriptor takes bytes. Loop-only.
func (w *writableWatch) watch(c *turn.Conn) {
	w.mu.Lock()
	w.waiting[int(c.Fd)] = c
	w.mu.Unlock()
	if err := w.change(int(c.Fd), unix.EVFILT_WRITE, unix.EV_ADD|unix.EV_ONESHOT); err != nil {
		c.Lose() // nobody would ever write to it again
	}
}

func (w *writableWatch) run() {
	defer close(w.ended)
	events := make([]unix.Kevent_t, 256)
	for {
		n, err := unix.Kevent(w.queue, nil, events, nil)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Ident)
			if fd == w.pipe[0] {
				return
			}
			w.mu.Lock()
			c := w.waiting[fd]
			delete(w.waiting, fd)
			w.mu.Unlock()
			if c != nil {
				c.Loop.Post(turn.Letter{Kind: turn.LetterWritable, Conn: c})
			}
		}
	}
}

func (w *writableWatch) stop() {
	unix.Write(w.pipe[1], []byte{1})
	<-w.ended
	unix.Close(w.queue)
	unix.Close(w.pipe[0])
	unix.Close(w.pipe[1])
}
