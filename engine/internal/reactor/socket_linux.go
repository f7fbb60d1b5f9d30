package reactor

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
// entering its care costs a sixth of a small write. send instead of write spares the kernel the way through its files:
// another fifteenth (docs/performance.md).
func writeNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_NOSIGNAL, 0, 0)
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// vector is what the kernel wants to know of several slices. It is kept, so that a write allocates nothing.
type vector struct {
	list []unix.Iovec
	head unix.Msghdr
}

// writeNow writes the slices one behind the other, in one system call.
func (v *vector) writeNow(fd int, ps [][]byte) (int, error) {
	v.list = v.list[:0]
	for _, p := range ps {
		if len(p) > 0 {
			x := unix.Iovec{Base: unsafe.SliceData(p)}
			x.SetLen(len(p))
			v.list = append(v.list, x)
		}
	}
	v.head.Iov = unsafe.SliceData(v.list)
	v.head.SetIovlen(len(v.list))
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.head)), unix.MSG_NOSIGNAL)
	clear(v.list) // the frames must not outlive their delivery
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
