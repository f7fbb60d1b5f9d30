//go:build !linux

package supervise

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// boundAccept has nothing to do here: acceptOne polls.
func boundAccept(int) error { return nil }

// acceptOne waits for a connection for acceptWait. Outside Linux accept ignores the timeout of its socket; so acceptOne
// polls, and does not block if another process was quicker.
func acceptOne(fd int) (int, unix.Sockaddr, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		return -1, nil, err
	}
	list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(list, int(acceptWait.Milliseconds()))
	if err != nil {
		return -1, nil, err
	}
	if n == 0 {
		return -1, nil, unix.EAGAIN
	}
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	conn, from, err := unix.Accept(fd)
	if err != nil {
		return -1, nil, err
	}
	unix.CloseOnExec(conn)
	if err := unix.SetNonblock(conn, true); err != nil {
		unix.Close(conn)
		return -1, nil, err
	}
	return conn, from, nil
}

func restoreBlocking(int) {}
