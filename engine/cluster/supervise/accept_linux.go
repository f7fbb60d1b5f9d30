package supervise

import (
	"os"

	"golang.org/x/sys/unix"
)

// boundAccept lets a blocking accept return now and then. What is accepted inherits it, which means nothing to
// a non-blocking socket.
func boundAccept(fd int) error {
	wait := unix.NsecToTimeval(int64(acceptWait))
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
}

// acceptOne waits for a connection for acceptWait.
func acceptOne(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}

// restoreBlocking undoes what a process may have done to the socket that all share (net.FileListener does it):
// every acceptor everywhere would spin.
func restoreBlocking(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
		unix.SetNonblock(fd, false)
	}
}
