//go:build !linux

package reactor

import "golang.org/x/sys/unix"

// tuneListener sets what accepted sockets inherit.
func tuneListener(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

// tuneConn has nothing to do where the kernel has no such bound.
func tuneConn(int) {}

func writeNow(fd int, p []byte) (int, error) { return unix.Write(fd, p) }

type vector struct{}

func (*vector) writeNow(fd int, ps [][]byte) (int, error) { return unix.Writev(fd, ps) }
