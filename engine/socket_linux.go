package engine

import "golang.org/x/sys/unix"

// tuneListener sets what accepted sockets inherit: no delay for small frames, and a bound on what the
// kernel hides of a slow reader's backlog, which is megabytes otherwise.
func tuneListener(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, notSentLowat)
}
