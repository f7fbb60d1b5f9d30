package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// All workers share one socket per address and block in accept: the kernel wakes them one after the other, in the order in
// which they began to wait. A dead or stopped worker does not wait, so it takes no dials. A socket for each worker
// (SO_REUSEPORT) lost: dials in the queue of a frozen worker would wait for it.

// listen opens the plan's addresses.
func (s *Supervisor) listen() error {
	for _, address := range s.plan.Listen {
		file, bound, err := listenOn(address)
		if err != nil {
			return ExplainListen(err, address)
		}
		s.listeners = append(s.listeners, file)
		s.addrs = append(s.addrs, bound)
	}
	if s.plan.API == "" {
		return nil
	}
	var err error
	if s.apiListener, s.apiAddr, err = listenOn(s.plan.API); err != nil {
		return ExplainListen(err, s.plan.API)
	}
	return nil
}

func (s *Supervisor) closeListeners() {
	for _, f := range s.listeners {
		f.Close()
	}
	s.listeners = nil
	if s.apiListener != nil {
		s.apiListener.Close()
	}
}

// listenOn opens one socket, and returns its address.
func listenOn(address string) (*os.File, string, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, "", err
	}
	file, bound, err := listenAt(tcp)
	if tcp.IP == nil && errors.Is(err, syscall.EAFNOSUPPORT) { // a machine without IPv6
		tcp.IP = net.IPv4zero
		return listenAt(tcp)
	}
	return file, bound, err
}

func listenAt(tcp *net.TCPAddr) (*os.File, string, error) {
	family, to := sockaddr(tcp)
	fd, err := streamSocket(family)
	if err != nil {
		return nil, "", err
	}
	file := os.NewFile(uintptr(fd), tcp.String())
	if err := bind(fd, family, to); err != nil {
		file.Close()
		return nil, "", err
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		file.Close()
		return nil, "", os.NewSyscallError("getsockname", err)
	}
	return file, peerOf(bound).String(), nil
}

func sockaddr(tcp *net.TCPAddr) (family int, to unix.Sockaddr) {
	if ip := tcp.IP.To4(); ip != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: tcp.Port, Addr: [4]byte(ip)}
	}
	to6 := &unix.SockaddrInet6{Port: tcp.Port}
	if len(tcp.IP) == net.IPv6len {
		to6.Addr = [16]byte(tcp.IP)
	}
	if ifi, err := net.InterfaceByName(tcp.Zone); err == nil {
		to6.ZoneId = uint32(ifi.Index)
	}
	return unix.AF_INET6, to6
}

func streamSocket(family int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

func bind(fd, family int, to unix.Sockaddr) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if family == unix.AF_INET6 { // [::] takes IPv4, too, as with Go's own listeners
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	// Accepted sockets inherit the option: small frames do not wait.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if err := boundAccept(fd); err != nil {
		return err
	}
	if err := unix.Bind(fd, to); err != nil {
		return os.NewSyscallError("bind", err)
	}
	return os.NewSyscallError("listen", unix.Listen(fd, queueLength()))
}

// queueLength is the longest queue of dials that the kernel grants.
func queueLength() int {
	const otherwise = 4096
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		return otherwise
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n < 1 {
		return otherwise
	}
	return n
}

// ExplainListen adds advice to an error of listening on an address.
func ExplainListen(err error, address string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("listen on %s: another process has this port; stop it or choose another port: %w", address, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: not allowed; choose a port above 1023: %w", address, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this machine has no such address; check host: %w", address, err)
	}
	return fmt.Errorf("listen on %s: %w", address, err)
}
