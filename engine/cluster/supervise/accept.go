package supervise

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// acceptWait is how long one accept blocks, and so how long Close may take.
const acceptWait = 250 * time.Millisecond

// Acceptor accepts connections from a listening socket that several processes share. It blocks in the kernel, not in Go's
// poller: the poller would wake all processes for each dial, and a busy one might take the connection and serve it late.
//
// Owner: shared (mutex: mu).
type Acceptor struct {
	mu     sync.Mutex // held while the descriptor is in use
	file   *os.File
	fd     int
	closed atomic.Bool
}

// NewAcceptor takes over a listening socket, one of Welcome.Listeners.
func NewAcceptor(listener *os.File) (*Acceptor, error) {
	fd := int(listener.Fd()) // Fd also makes the socket blocking
	if err := boundAccept(fd); err != nil {
		return nil, fmt.Errorf("make acceptor: %w", err)
	}
	return &Acceptor{file: listener, fd: fd}, nil
}

// Accept waits for a connection and returns its descriptor, non-blocking and closed on exec, which the caller
// owns. One goroutine calls it; it occupies a thread while it waits. Errors: net.ErrClosed after Close; the kernel's error
// when descriptors or memory are short, after which the caller should pause and call again.
func (a *Acceptor) Accept() (fd int, peer netip.AddrPort, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for !a.closed.Load() {
		fd, from, err := acceptOne(a.fd)
		switch err {
		case nil:
			return fd, peerOf(from), nil
		case unix.EAGAIN:
			restoreBlocking(a.fd)
		case unix.EINTR, unix.ECONNABORTED:
		default:
			return -1, netip.AddrPort{}, os.NewSyscallError("accept", err)
		}
	}
	return -1, netip.AddrPort{}, net.ErrClosed
}

// Close ends a waiting Accept, which may still return a connection, and closes this process's copy of the socket. It takes
// up to a quarter of a second. Any goroutine.
func (a *Acceptor) Close() error {
	if a.closed.Swap(true) {
		return net.ErrClosed
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.file.Close()
}

func peerOf(from unix.Sockaddr) netip.AddrPort {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(from.Addr).Unmap()
		if from.ZoneId != 0 {
			if ifi, err := net.InterfaceByIndex(int(from.ZoneId)); err == nil {
				addr = addr.WithZone(ifi.Name)
			}
		}
		return netip.AddrPortFrom(addr, uint16(from.Port))
	}
	return netip.AddrPort{}
}
