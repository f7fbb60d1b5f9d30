package engine

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

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

// writeNow is one write to a socket that does not block. Go's scheduler is not told of the system call: leaving and
// entering its care costs a sixth of a small write (docs/performance.md).
func writeNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// vector is what the kernel wants to know of several slices. It is kept, so that a write allocates nothing.
type vector []unix.Iovec

// writeNow writes the slices one behind the other, in one system call.
func (v *vector) writeNow(fd int, ps [][]byte) (int, error) {
	list := (*v)[:0]
	for _, p := range ps {
		if len(p) > 0 {
			x := unix.Iovec{Base: unsafe.SliceData(p)}
			x.SetLen(len(p))
			list = append(list, x)
		}
	}
	*v = list
	n, _, errno := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(list))), uintptr(len(list)))
	clear(list) // the frames must not outlive their delivery
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
