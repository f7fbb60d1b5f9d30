//go:build linux

package load

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const dialing = 128 // the most connections that are not ready at a time

// connectAll connects all clients, and waits until they are ready.
func (g *generator) connectAll() error {
	addr, err := netip.ParseAddrPort(g.plan.Addr)
	if err != nil {
		return err
	}
	for i := range g.plan.Rooms {
		g.rooms = append(g.rooms, &room{name: "room-" + strconv.Itoa(i)})
	}
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	patience := max(2*time.Minute, time.Duration(g.plan.Parts*g.plan.Conns)*2*time.Millisecond)
	deadline := time.Now().Add(patience)
	for g.ready < g.plan.Conns && g.failed == nil {
		for g.opened < g.plan.Conns && g.opened-g.ready < dialing {
			if err := g.dial(to); err != nil {
				return err
			}
		}
		g.turn()
		if g.now.After(deadline) {
			return fmt.Errorf("only %d of %d clients got in within %v", g.ready, g.plan.Conns, patience)
		}
	}
	return g.failed
}

func (g *generator) dial(to unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket %d: %w", g.opened, err)
	}
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err := g.comeFrom(fd); err != nil {
		return err
	}
	c := &conn{fd: fd, index: g.opened}
	g.conns = append(g.conns, c)
	for len(g.byFD) <= fd {
		g.byFD = append(g.byFD, nil)
	}
	g.byFD[fd] = c
	g.opened++
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	return unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd,
		&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLET&0xffffffff, Fd: int32(fd)})
}

func (g *generator) closeAll() {
	for _, c := range g.conns {
		unix.Close(c.fd)
	}
}

// firstPort is the first of a part's own ports: services use lower ones.
const firstPort = 12_000

// comeFrom makes a client dial from the plan's address, and from the next port of it. If the kernel chose the port, its
// search would be three quarters of the cost of 16,000 connections from one address.
func (g *generator) comeFrom(fd int) error {
	if g.plan.Source == "" {
		return nil
	}
	addr, err := netip.ParseAddr(g.plan.Source)
	if err != nil {
		return fmt.Errorf("read source address: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // connections of an earlier load may be in TIME_WAIT
	for g.port = max(g.port, firstPort); g.port < 1<<16; {
		at := &unix.SockaddrInet4{Addr: addr.As4(), Port: g.port}
		g.port++
		if err = unix.Bind(fd, at); err != unix.EADDRINUSE {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("dial from %s: %w", g.plan.Source, err)
	}
	return nil
}

var greeting = []byte(`"connection_id":"`)

// greeted takes the first two bytes of the connection's id for its worker. A server that sends no id has one worker.
func (c *conn) greeted(payload []byte) error {
	i := bytes.Index(payload, greeting)
	if i < 0 || len(payload) < i+len(greeting)+4 {
		return nil
	}
	var id [2]byte
	if _, err := hex.Decode(id[:], payload[i+len(greeting):][:4]); err != nil {
		return nil
	}
	c.worker = uint16(id[0])<<8 | uint16(id[1])
	return nil
}
