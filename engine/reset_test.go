package engine

import (
	"net"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// handing is a listener that takes connections off the queue itself and makes them anew from their descriptors, once ready
// says so: what a worker does with a socket that it has inherited.
type handing struct {
	*net.TCPListener
	t     *testing.T
	ready func()
}

func (h *handing) AcceptTCP() (*net.TCPConn, error) {
	tcp, err := h.TCPListener.AcceptTCP()
	if err != nil {
		return nil, err
	}
	defer tcp.Close()
	h.ready()
	file, err := tcp.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}

// reset connects, sends some bytes, and resets.
func reset(t testing.TB, address, sent string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	conn.Write([]byte(sent))
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// A connection that its peer resets before it is made from its descriptor has no remote address. It is closed and
// counted; nothing of it stays, and the next is served.
func TestResetBeforeItIsTaken(t *testing.T) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	const resets = 50
	var taken atomic.Int64
	gone := make(chan struct{}, resets)
	h := &handing{TCPListener: listener, t: t, ready: func() {
		if taken.Add(1) <= resets {
			<-gone
		}
	}}
	s := startServer(t, nil, func(s *Server) { s.worker.Listener = h })
	before := descriptors(t)
	for range resets {
		reset(t, listener.Addr().String(), "")
		gone <- struct{}{}
	}
	c := dial(t, s)
	c.send(`{"type":"ping"}`)
	c.expect("pong")
	if n := s.Stats().AcceptErrors; n == 0 {
		t.Errorf("no accept error for %d resets", resets)
	}
	eventually(t, "no descriptor of the reset ones is left", func() bool { return descriptors(t) <= before+2 })
}

// descriptors counts the open descriptors of this process.
func descriptors(t testing.TB) (n int) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	for fd := range int(min(limit.Cur, 4096)) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}
