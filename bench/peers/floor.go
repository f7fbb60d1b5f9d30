//go:build linux

package peers

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"runtime"
	"runtime/debug"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The floor is the least work of a room server: one thread, one epoll set, raw system calls. It reads, unmasks, prepares
// a frame, and writes it; all frames of one turn to a connection leave in one write. It checks no rules, has no backlog
// (a full socket is an error), and closes a connection at any input that it does not expect.

// floorConn is a connection.
//
// Owner: the floor's thread.
type floorConn struct {
	fd       int
	id       uint64
	upgraded bool
	in       []byte
	room     *floorRoom
	at       int // in the room
}

// floorRoom is a room, with the frames of this turn for its members.
//
// Owner: the floor's thread.
type floorRoom struct {
	name    string
	members []*floorConn
	frames  []floorFrame // of this turn
	dirty   bool
}

type floorFrame struct {
	from *floorConn
	wire []byte
}

// floor is the loop.
//
// Owner: its thread.
type floor struct {
	echo   bool
	epoll  int
	listen int
	conns  []*floorConn // by descriptor
	rooms  map[string]*floorRoom
	dirty  []*floorRoom
	buffer []byte
	out    []byte
	ids    uint64
	ring   *floorRing // nil: each read and each write is a system call
}

func serveFloor(addr string, echo bool) error { return serveBare(addr, echo, nil) }

func serveBare(addr string, echo bool, ring *floorRing) error {
	runtime.LockOSThread()
	debug.SetGCPercent(400)
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	f := &floor{echo: echo, rooms: map[string]*floorRoom{}, buffer: make([]byte, 64<<10), ring: ring}
	if f.listen, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err != nil {
		return err
	}
	unix.SetsockoptInt(f.listen, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err := unix.Bind(f.listen, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	if err := unix.Listen(f.listen, 4096); err != nil {
		return err
	}
	if f.epoll, err = unix.EpollCreate1(0); err != nil {
		return err
	}
	unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, f.listen, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f.listen)})
	events := make([]unix.EpollEvent, 1024)
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(f.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), ^uintptr(0), 0, 0)
		if errno != 0 && errno != unix.EINTR {
			return errno
		}
		if errno != 0 {
			n = 0
		}
		if ring != nil {
			ring.read(f, events[:n])
		} else {
			f.readEach(events[:n])
		}
		for _, r := range f.dirty {
			f.flush(r)
		}
		f.dirty = f.dirty[:0]
		if ring != nil {
			ring.write()
		}
	}
}

func (f *floor) readEach(events []unix.EpollEvent) {
	for _, e := range events {
		if int(e.Fd) == f.listen {
			f.accept()
		} else if c := f.conns[e.Fd]; c != nil && !f.read(c) {
			f.close(c)
		}
	}
}

// write gives a connection bytes, now or at the end of the turn. They are not changed until then.
func (f *floor) write(fd int, p []byte) bool {
	if f.ring == nil {
		return write(fd, p)
	}
	f.ring.sends = append(f.ring.sends, floorOp{fd: fd, bytes: p})
	return true
}

func (f *floor) accept() {
	for {
		fd, _, err := unix.Accept4(f.listen, unix.SOCK_NONBLOCK)
		if err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		f.ids++
		for len(f.conns) <= fd {
			f.conns = append(f.conns, nil)
		}
		f.conns[fd] = &floorConn{fd: fd, id: f.ids}
		unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
}

func (f *floor) close(c *floorConn) {
	if r := c.room; r != nil {
		last := r.members[len(r.members)-1]
		r.members[c.at], last.at = last, c.at
		r.members = r.members[:len(r.members)-1]
	}
	f.conns[c.fd] = nil
	unix.Close(c.fd)
}

func (f *floor) read(c *floorConn) bool {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&f.buffer[0])), uintptr(len(f.buffer)))
	if errno == unix.EAGAIN {
		return true
	}
	if errno != 0 || n == 0 {
		return false
	}
	return f.take(c, f.buffer[:n])
}

// take takes the input of a connection.
func (f *floor) take(c *floorConn, chunk []byte) bool {
	if len(c.in) > 0 {
		c.in = append(c.in, chunk...)
		chunk = c.in
	}
	if !c.upgraded {
		end := bytes.Index(chunk, []byte("\r\n\r\n"))
		if end < 0 {
			c.in = append(c.in[:0], chunk...)
			return true
		}
		c.upgraded = true
		if !write(c.fd, switching(chunk[:end])) {
			return false
		}
		chunk = chunk[end+4:]
	}
	f.out = f.out[:0]
	for {
		op, payload, size := clientFrame(chunk)
		if size == 0 {
			break
		}
		chunk = chunk[size:]
		if op == 8 || !f.message(c, op, payload) {
			return false
		}
	}
	c.in = append(c.in[:0], chunk...)
	return len(f.out) == 0 || f.write(c.fd, f.lasting(f.out))
}

// message answers one message into out.
func (f *floor) message(c *floorConn, op byte, payload []byte) bool {
	if f.echo {
		f.out = serverFrame(f.out, op, payload)
		return true
	}
	var e envelope
	if json.Unmarshal(payload, &e) != nil {
		return false
	}
	switch e.Type {
	case "join":
		r := f.rooms[e.Room]
		if r == nil {
			r = &floorRoom{name: e.Room}
			f.rooms[e.Room] = r
		}
		c.room, c.at = r, len(r.members)
		r.members = append(r.members, c)
		f.out = serverFrame(f.out, 1, joined(e.Room, len(r.members)))
	case "broadcast":
		r := c.room
		r.frames = append(r.frames, floorFrame{c, serverFrame(nil, 1, broadcast(e.Room, c.id, e.Data))})
		f.out = serverFrame(f.out, 1, sent(e.Room, len(r.members)-1))
		if !r.dirty {
			r.dirty = true
			f.dirty = append(f.dirty, r)
		}
	}
	return true
}

// flush writes the turn's frames to every member, in one write each.
func (f *floor) flush(r *floorRoom) {
	f.out = f.out[:0]
	from := r.frames[0].from
	for _, x := range r.frames {
		f.out = append(f.out, x.wire...)
		if x.from != from {
			from = nil
		}
	}
	out := f.lasting(f.out)
	for _, m := range r.members {
		switch {
		case m == from:
		case from != nil:
			f.write(m.fd, out)
		default:
			var own []byte
			for _, x := range r.frames {
				if x.from != m {
					own = append(own, x.wire...)
				}
			}
			f.write(m.fd, own)
		}
	}
	clear(r.frames)
	r.frames, r.dirty = r.frames[:0], false
}

// write is one system call that does not block, and so need not tell the scheduler. send(2) is cheaper than write(2).
func write(fd int, p []byte) bool {
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_NOSIGNAL, 0, 0)
	return err == 0 && int(n) == len(p)
}

// switching answers the handshake.
func switching(head []byte) []byte {
	const field = "Sec-WebSocket-Key: "
	at := bytes.Index(head, []byte(field)) + len(field)
	key := head[at : at+24]
	sum := sha1.Sum(append(append([]byte(nil), key...), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	return []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
}

// clientFrame reads a masked frame and unmasks it. size is 0 if the frame is incomplete.
func clientFrame(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 6 {
		return 0, nil, 0
	}
	n, head := int(b[1]&0x7f), 2
	switch n {
	case 126:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		if len(b) < 14 {
			return 0, nil, 0
		}
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	}
	if len(b) < head+4+n {
		return 0, nil, 0
	}
	mask := uint64(binary.LittleEndian.Uint32(b[head:]))
	mask |= mask << 32
	payload = b[head+4 : head+4+n]
	i := 0
	for ; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(payload[i:], binary.LittleEndian.Uint64(payload[i:])^mask)
	}
	for ; i < n; i++ {
		payload[i] ^= byte(mask >> (i % 8 * 8))
	}
	return b[0] & 0x0f, payload, head + 4 + n
}

func serverFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, byte(n))
	case n < 1<<16:
		dst = append(dst, 126, byte(n>>8), byte(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, 127), uint64(n))
	}
	return append(dst, payload...)
}
