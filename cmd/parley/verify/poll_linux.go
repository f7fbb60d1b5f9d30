package verify

import (
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// interest is the set of events for which a descriptor is watched.
type interest uint8

const (
	watchNothing interest = iota // not even errors: it is out of the set
	watchInput
	watchBoth
)

// ready is a descriptor that can be read from or written to.
type ready struct {
	fd       int
	readable bool
	writable bool
}

// poller is one epoll and the sockets in it.
//
// Owner: the goroutine that runs the checker.
type poller struct {
	epoll  int
	to     unix.Sockaddr
	family int
	events []unix.EpollEvent
	ready  []ready
}

func newPoller(addr *net.TCPAddr) (*poller, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("create epoll: %w", err)
	}
	p := &poller{epoll: epoll, events: make([]unix.EpollEvent, 512)}
	if ip := addr.IP.To4(); ip != nil {
		to := &unix.SockaddrInet4{Port: addr.Port}
		copy(to.Addr[:], ip)
		p.to, p.family = to, unix.AF_INET
		return p, nil
	}
	to := &unix.SockaddrInet6{Port: addr.Port}
	copy(to.Addr[:], addr.IP.To16())
	p.to, p.family = to, unix.AF_INET6
	return p, nil
}

func (p *poller) shut() { unix.Close(p.epoll) }

// dial begins to connect. The descriptor becomes writable when it is connected or has failed.
func (p *poller) dial() (int, error) {
	fd, err := unix.Socket(p.family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // a failure costs time only
	if err := unix.Connect(fd, p.to); err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("watch socket: %w", err)
	}
	return fd, nil
}

// connected returns the error of a dial that has ended.
func (p *poller) connected(fd int) error {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// watch changes the events for which a descriptor is watched. With watchNothing it leaves the set: epoll would report an
// error that is not read for ever.
func (p *poller) watch(fd int, was, want interest) {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if want == watchBoth {
		event.Events |= unix.EPOLLOUT
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case was == want:
		return
	case want == watchNothing:
		op = unix.EPOLL_CTL_DEL
	case was == watchNothing:
		op = unix.EPOLL_CTL_ADD
	}
	unix.EpollCtl(p.epoll, op, fd, &event)
}

// read returns 0 without an error at the end of the stream; again means that no byte is there yet.
func (p *poller) read(fd int, b []byte) (n int, again bool, err error) {
	n, err = unix.Read(fd, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return 0, true, nil
	}
	return max(n, 0), false, err
}

// write returns the number of bytes that the kernel took; less than all of b is no error.
func (p *poller) write(fd int, b []byte) (int, error) {
	n, err := unix.Write(fd, b)
	if err == unix.EAGAIN || err == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), err
}

func (p *poller) hangUp(fd int) { unix.Close(fd) }

// wait waits for ready descriptors. The list is borrowed until the next call.
func (p *poller) wait(timeout time.Duration) ([]ready, error) {
	n, err := unix.EpollWait(p.epoll, p.events, int(timeout.Milliseconds()))
	if err != nil && err != unix.EINTR {
		return nil, fmt.Errorf("wait for sockets: %w", err)
	}
	p.ready = p.ready[:0]
	for _, e := range p.events[:max(n, 0)] {
		ended := e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0
		p.ready = append(p.ready, ready{fd: int(e.Fd), readable: ended || e.Events&unix.EPOLLIN != 0,
			writable: ended || e.Events&unix.EPOLLOUT != 0})
	}
	return p.ready, nil
}
