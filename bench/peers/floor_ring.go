//go:build linux

package peers

import (
	"errors"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The second floor: as the first, but all reads of a turn are one system call, by io_uring, and so are all writes.

// floorOp is a read or a write.
//
// Owner: the floor's thread.
type floorOp struct {
	fd    int
	bytes []byte
	n     int32 // the result
}

// floorRing is the kernel's ring.
//
// Owner: the floor's thread.
type floorRing struct {
	fd       int
	requests []floorRequest
	results  []floorResult

	submitTail, completeHead, completeTail *uint32

	sends, reads []floorOp
	buffers      [][]byte
	arena        []byte
}

// floorRequest is struct io_uring_sqe.
//
// Owner: the floor's thread.
type floorRequest struct {
	op, flags uint8
	_         uint16
	fd        int32
	_         uint64
	address   uint64
	length    uint32
	opFlags   uint32
	user      uint64
	_         [3]uint64
}

// floorResult is struct io_uring_cqe.
type floorResult struct {
	user uint64
	n    int32
	_    uint32
}

const (
	floorRingSize   = 1024
	floorReadBytes  = 16 << 10
	floorArenaBytes = 1 << 20
	opSend, opRecv  = 26, 27
)

func serveFloorRing(addr string, echo bool) error {
	r, err := newFloorRing()
	if err != nil {
		return err
	}
	return serveBare(addr, echo, r)
}

func newFloorRing() (*floorRing, error) {
	var p struct { // struct io_uring_params
		entries, results, flags, threadCPU, threadIdle, features, workers uint32
		_                                                                 [3]uint32
		submit                                                            struct{ head, tail, mask, entries, flags, dropped, array, _, _, _ uint32 }
		complete                                                          struct{ head, tail, mask, entries, overflow, results, flags, _, _, _ uint32 }
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, floorRingSize, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, errno
	}
	const rights, kind, requestsAt = unix.PROT_READ | unix.PROT_WRITE, unix.MAP_SHARED | unix.MAP_POPULATE, 0x10000000
	queues, err := unix.Mmap(int(fd), 0, int(max(p.submit.array+p.entries*4, p.complete.results+p.results*16)), rights, kind)
	requests, err2 := unix.Mmap(int(fd), requestsAt, int(p.entries)*64, rights, kind)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&queues[offset])) }
	for i := range p.entries {
		*at(p.submit.array + 4*i) = i
	}
	r := &floorRing{fd: int(fd), submitTail: at(p.submit.tail), completeHead: at(p.complete.head), completeTail: at(p.complete.tail)}
	r.requests = unsafe.Slice((*floorRequest)(unsafe.Pointer(&requests[0])), p.entries)
	r.results = unsafe.Slice((*floorResult)(unsafe.Pointer(&queues[p.complete.results])), p.results)
	return r, nil
}

// carry carries out reads or writes; none of them waits.
func (r *floorRing) carry(op uint8, list []floorOp) {
	for len(list) > 0 {
		part := list[:min(len(list), floorRingSize)]
		tail := *r.submitTail
		for i := range part {
			x := &part[i]
			r.requests[tail%floorRingSize] = floorRequest{op: op, fd: int32(x.fd), address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(x.bytes)))),
				length: uint32(len(x.bytes)), opFlags: unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL, user: uint64(i)}
			tail++
		}
		atomic.StoreUint32(r.submitTail, tail)
		n, _, errno := unix.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(len(part)), 0, 0, 0, 0)
		if errno != 0 || int(n) != len(part) {
			panic(errno)
		}
		head, end := *r.completeHead, atomic.LoadUint32(r.completeTail)
		for ; head != end; head++ {
			done := &r.results[head%uint32(len(r.results))]
			part[done.user].n = done.n
		}
		atomic.StoreUint32(r.completeHead, head)
		runtime.KeepAlive(part)
		list = list[len(part):]
	}
}

// read reads from all connections that have input, and takes it.
func (r *floorRing) read(f *floor, events []unix.EpollEvent) {
	r.reads = r.reads[:0]
	for _, e := range events {
		switch {
		case int(e.Fd) == f.listen:
			f.accept()
		case f.conns[e.Fd] != nil:
			if len(r.buffers) == len(r.reads) {
				r.buffers = append(r.buffers, make([]byte, floorReadBytes))
			}
			r.reads = append(r.reads, floorOp{fd: int(e.Fd), bytes: r.buffers[len(r.reads)]})
		}
	}
	r.carry(opRecv, r.reads)
	for i := range r.reads {
		x := &r.reads[i]
		c := f.conns[x.fd]
		if x.n == -int32(unix.EAGAIN) || c == nil {
			continue
		}
		if x.n <= 0 || !f.take(c, x.bytes[:x.n]) {
			f.close(c)
		}
	}
}

// write carries out the writes of the turn.
func (r *floorRing) write() {
	r.carry(opSend, r.sends)
	clear(r.sends)
	r.sends, r.arena = r.sends[:0], r.arena[:0]
}

// lasting is p as it stays until the end of the turn.
func (f *floor) lasting(p []byte) []byte {
	r := f.ring
	if r == nil {
		return p
	}
	if cap(r.arena)-len(r.arena) < len(p) {
		r.arena = make([]byte, 0, max(floorArenaBytes, len(p)))
	}
	from := len(r.arena)
	r.arena = append(r.arena, p...)
	return r.arena[from:]
}
