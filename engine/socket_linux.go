package engine

import "golang.org/x/sys/unix"

// tuneListener sets what accepted sockets inherit: no delay for small frames.
func tuneListener(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// tuneConn bounds what the kernel hides of a slow reader's backlog: 4 MB otherwise, 100 KB with it. Sockets do
// not inherit this from their listener.
func tuneConn(fd int) {
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
}
