package cluster_test

import (
	"net"
	"sync"
	"testing"

	"github.com/parleyd/parley/engine"
)

const upgradeHead = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// hastyPeers are peers that leave at once: with the bytes that they send first, and whether they reset the connection.
var hastyPeers = []struct {
	sent   string
	resets bool
}{
	{"", true},
	{"", false},
	{upgradeHead[:40], true},
	{upgradeHead[:40], false},
	{upgradeHead, true},
	{upgradeHead, false},
	{upgradeHead + "\x81\x85\x00\x00\x00\x00hello", true},
	{"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", true},
}

// visit is the life of such a peer.
func visit(address, sent string, resets bool) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	if sent != "" {
		conn.Write([]byte(sent))
	}
	if resets {
		conn.(*net.TCPConn).SetLinger(0)
	}
	return conn.Close()
}

// Peers that reset or leave while they wait for a worker, or a moment later, harm no other: no worker ends, and connected
// clients are served.
func TestHastyPeers(t *testing.T) {
	const visits = 60 // of each kind, from each of as many goroutines as there are kinds
	s := startProcesses(t, engine.Config{Processes: 2})
	clients := s.each(2)
	before := s.pids()
	var all sync.WaitGroup
	for _, p := range hastyPeers {
		all.Go(func() {
			for range visits {
				if err := visit(s.addr, p.sent, p.resets); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	for i, c := range append(clients, s.dial("")) {
		c.must(`{"type":"ping"}`, "pong")
		if i < len(before) && c.pid != before[i] {
			t.Errorf("worker %d was %d, is %d", i, before[i], c.pid)
		}
	}
	if after := s.pids(); len(after) != 2 || after[0] != before[0] || after[1] != before[1] {
		t.Errorf("the workers were %v, are %v", before, after)
	}
}
