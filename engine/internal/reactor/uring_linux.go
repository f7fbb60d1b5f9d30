package reactor

import (
	"errors"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/parleyd/parley/engine/internal/turn"
)

// A ring hands the kernel many sends in one system call [io_uring(7)].
//
// Problem: a message to a room is one send for each member, and the way into the kernel and back is a part of each, with the work that
// the kernel does at each return.
//
// Invariant: nothing is under way between two calls of send. Each request carries MSG_DONTWAIT, so the kernel carries it out, or
// refuses it, while the one system call lasts, and its result lies in memory that the kernel shares with us when that returns.
// So the bytes of a send are borrowed, as those of a write are, and a turn ends with its writes as ever.
//
// What lost: registered descriptors, which save the kernel a look into its table and cost a system call for each connection;
// requests that wait in the kernel, since a connection that is ended would still have bytes under way.
//
// Owner: the goroutine that takes the loop's turn.
type uring struct {
	fd      int
	memory  []byte // the two queues
	entries []byte // what the submission queue points to

	requests []request // in entries
	results  []result  // in memory
	submit   struct{ head, tail *uint32 }
	complete struct{ head, tail *uint32 }

	// under are the sends of the call that is under way. Here they keep their bytes in memory, and off the stack of a goroutine, which
	// may move.
	under []turn.Send
}

// request is struct io_uring_sqe.
//
// Owner: the goroutine that takes the loop's turn.
type request struct {
	op, flags uint8
	priority  uint16
	fd        int32
	offset    uint64
	address   uint64
	length    uint32
	opFlags   uint32
	user      uint64
	_         [3]uint64
}

// result is struct io_uring_cqe.
//
// Owner: the kernel, until it is collected.
type result struct {
	user  uint64
	res   int32
	flags uint32
}

// uringParams is struct io_uring_params, with the offsets of the queues in the shared memory.
//
// Owner: the goroutine that opens.
type uringParams struct {
	entries, results, flags, threadCPU, threadIdle, features, workers uint32
	_                                                                 [3]uint32
	submit                                                            struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	complete struct {
		head, tail, mask, entries, overflow, results, flags, _ uint32
		_                                                      uint64
	}
}

const (
	opSend         = 26 // IORING_OP_SEND
	singleMemory   = 1  // IORING_FEAT_SINGLE_MMAP
	getEvents      = 1  // IORING_ENTER_GETEVENTS
	requestsOffset = 0x10000000
	uringSends     = turn.FlushGroupTogether // most sends in one system call
)

// openUring makes a ring, and sends a byte through it. Errors: the kernel, or a filter of system calls, refuses it.
func openUring() (*uring, error) {
	var p uringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringSends, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("io_uring_setup: %w", errno)
	}
	r := &uring{fd: int(fd)}
	if err := r.share(&p); err != nil {
		r.close()
		return nil, err
	}
	if err := r.try(); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// share maps the queues.
func (r *uring) share(p *uringParams) (err error) {
	if p.features&singleMemory == 0 {
		return errors.New("io_uring: the kernel is older than 5.4")
	}
	size := max(p.submit.array+p.entries*4, p.complete.results+p.results*uint32(unsafe.Sizeof(result{})))
	const rights, kind = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE
	if r.memory, err = unix.Mmap(r.fd, 0, int(size), rights, kind); err != nil {
		return fmt.Errorf("io_uring: map the queues: %w", err)
	}
	if r.entries, err = unix.Mmap(r.fd, requestsOffset, int(p.entries)*int(unsafe.Sizeof(request{})), rights, kind); err != nil {
		return fmt.Errorf("io_uring: map the requests: %w", err)
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }
	r.submit.head, r.submit.tail = at(p.submit.head), at(p.submit.tail)
	r.complete.head, r.complete.tail = at(p.complete.head), at(p.complete.tail)
	r.requests = unsafe.Slice((*request)(unsafe.Pointer(&r.entries[0])), p.entries)
	r.results = unsafe.Slice((*result)(unsafe.Pointer(&r.memory[p.complete.results])), p.results)
	for i := range p.entries { // each place of the queue stands for the request of the same number
		*at(p.submit.array + 4*i) = i
	}
	return nil
}

// try sends a byte to a socket of our own.
func (r *uring) try() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("io_uring: %w", err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	trial := []turn.Send{{Fd: pair[0], Bytes: []byte{7}}}
	if taken, err := r.send(trial); taken == 0 {
		return err
	}
	if trial[0].Err != nil {
		return fmt.Errorf("io_uring: send: %w", trial[0].Err)
	}
	var got [2]byte
	if n, err := unix.Read(pair[1], got[:]); n != 1 || got[0] != 7 {
		return fmt.Errorf("io_uring: a byte was sent, and %d came (%v)", n, err)
	}
	return nil
}

// send carries out the first sends, uringSends at most, and returns their number. It is less, with an error, where the kernel
// refuses the others.
func (r *uring) send(list []turn.Send) (taken int, err error) {
	list = list[:min(len(list), len(r.requests))]
	r.under = list
	defer func() { r.under = nil }()
	mask, tail := uint32(len(r.requests)-1), *r.submit.tail
	for i := range list {
		s := &list[i]
		r.requests[tail&mask] = request{op: opSend, fd: int32(s.Fd), address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(s.Bytes)))),
			length: uint32(len(s.Bytes)), opFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(i)}
		s.N, s.Err = 0, unix.EINPROGRESS
		tail++
	}
	atomic.StoreUint32(r.submit.tail, tail)
	n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(list)), 0, 0, 0, 0)
	if errno != 0 {
		n, err = 0, fmt.Errorf("io_uring_enter: %w", errno)
	}
	if n == 0 && err == nil {
		err = errors.New("io_uring_enter: it has taken nothing")
	}
	if taken = int(n); taken < len(list) {
		atomic.StoreUint32(r.submit.tail, atomic.LoadUint32(r.submit.head)) // the kernel must not carry out the others later
	}
	for got := r.collect(list); got < taken; got += r.collect(list) {
		// No kernel that we know gets here: a request that does not wait is over when the call returns.
		if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 0, 1, getEvents, 0, 0); errno != 0 && errno != unix.EINTR {
			return taken, fmt.Errorf("io_uring_enter: %w", errno)
		}
	}
	return taken, err
}

// collect reads the results that are there.
func (r *uring) collect(list []turn.Send) (n int) {
	mask, head, tail := uint32(len(r.results)-1), *r.complete.head, atomic.LoadUint32(r.complete.tail)
	for ; head != tail; head++ {
		x := &r.results[head&mask]
		s := &list[x.user]
		if s.N, s.Err = int(x.res), nil; x.res < 0 {
			s.N, s.Err = 0, unix.Errno(-x.res)
		}
		n++
	}
	atomic.StoreUint32(r.complete.head, head)
	return n
}

func (r *uring) close() {
	if r.entries != nil {
		unix.Munmap(r.entries)
	}
	if r.memory != nil {
		unix.Munmap(r.memory)
	}
	unix.Close(r.fd)
}
