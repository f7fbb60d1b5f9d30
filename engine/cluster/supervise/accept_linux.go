package supervise

import (
	"os"

	"golang.org/x/sys/unix"
)

// boundAccept makes a blocking accept return after acceptWait. Accepted sockets inherit the option, which has no effect on
// them: they do not block.
func boundAccept(fd int) error {
	wait := unix.NsecToTimeval(int64(acceptWait))
	return os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
}

// acceptOne waits for a connection for acceptWait.
func acceptOne(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}

// restoreBlocking makes the shared socket blocking again. One process can make it non-blocking for all (net.FileListener
// does), and then every acceptor would spin.
func restoreBlocking(fd int) {
	if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
		unix.SetNonblock(fd, false)
	}
}
