package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

const (
	stormMessages = 150
	stormBytes    = 4 << 10
)

// storming are the numbers of members that read, and of members that never do.
func storming() (fast, slow int) {
	if testing.Short() {
		return 450, 50
	}
	return 4500, 500
}

// storm is a room in which one member publishes and most of the others read.
type storm struct {
	*server
	speaker *gorilla.Conn
	fast    []*gorilla.Conn
	sent    chan struct{} // an answer to the speaker
}

// narrow dials with a small receive window, so that unread bytes stay with the server.
var narrow = &gorilla.Dialer{NetDial: func(network, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		raw.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 32<<10) })
		return err
	}}
	return dialer.Dial(network, address)
}}

func (s *server) join(dialer *gorilla.Dialer) *gorilla.Conn {
	s.t.Helper()
	conn, _, err := dialer.Dial(s.ws, nil)
	if err == nil {
		s.t.Cleanup(func() { conn.Close() })
		err = conn.WriteMessage(gorilla.TextMessage, []byte(`{"type":"join","room":"r"}`))
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// speak sends the messages, each once the one before is acknowledged.
func (s *storm) speak() {
	go func() {
		for {
			_, raw, err := s.speaker.ReadMessage()
			if err != nil {
				return
			}
			var m struct{ Type string }
			if json.Unmarshal(raw, &m) == nil && m.Type == "broadcast_sent" {
				s.sent <- struct{}{}
			}
		}
	}()
	pad := strings.Repeat("x", stormBytes)
	for n := range stormMessages {
		text := fmt.Appendf(nil, `{"type":"broadcast","room":"r","data":{"pad":"%s","n":%d}}`, pad, n)
		if err := s.speaker.WriteMessage(gorilla.TextMessage, text); err != nil {
			s.t.Fatal(err)
		}
		<-s.sent
	}
}

// listen reads all messages, in order, and reports the missing ones.
func listen(conn *gorilla.Conn) error {
	for n := 0; n < stormMessages; {
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		_, raw, err := conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("after %d messages: %w", n, err)
		}
		_, tail, found := bytes.Cut(raw, []byte(`","n":`))
		if !found {
			continue // no broadcast
		}
		digits, _, _ := bytes.Cut(tail, []byte("}"))
		if got, err := strconv.Atoi(string(digits)); err != nil || got != n {
			return fmt.Errorf("%s came, %d was next", digits, n)
		}
		n++
	}
	return nil
}

// watchHealth asks for the server's health until the storm is over: each loop must take a turn in time.
func (s *storm) watchHealth(over <-chan bool) {
	for {
		select {
		case <-over:
			return
		default:
		}
		response, err := http.Get(s.admin + "healthz")
		if err != nil || response.StatusCode != http.StatusOK {
			s.t.Errorf("unhealthy in the storm: %v %v", response, err)
			return
		}
		response.Body.Close()
	}
}

// In a storm of broadcasts one in ten members never reads. The server ends these; the others get all messages, memory stays
// bounded, and every loop takes its turns.
func TestSlowConsumers(t *testing.T) {
	fast, slow := storming()
	s := &storm{server: serveMany(t, 0, "--backlog-soft-bytes", "65536", "--backlog-hard-bytes", "131072"), sent: make(chan struct{}, 1)}
	s.speaker = s.join(gorilla.DefaultDialer)
	for range fast - 1 {
		s.fast = append(s.fast, s.join(gorilla.DefaultDialer))
	}
	for range slow {
		s.join(narrow)
	}
	eventually(t, "all are in", func() bool { return s.stats("connections") == float64(fast+slow) })
	before := s.metric("process_resident_memory_bytes")
	var listeners sync.WaitGroup
	for i, conn := range s.fast {
		listeners.Add(1)
		go func() {
			defer listeners.Done()
			if err := listen(conn); err != nil {
				t.Errorf("fast member %d: %v", i, err)
			}
		}()
	}
	over, watched := make(chan bool), make(chan bool)
	go func() {
		s.watchHealth(over)
		close(watched)
	}()
	s.speak()
	listeners.Wait()
	close(over)
	<-watched
	eventually(t, "the slow are ended", func() bool {
		return s.metric(`parley_connections_ended_total\{cause="slow_consumer"\}`) == float64(slow)
	})
	// The backlogs of the slow members, and as much again for garbage.
	if grown := s.metric("process_resident_memory_bytes") - before; grown > float64(2*slow*(128<<10)+16<<20) {
		t.Errorf("the server has grown by %v MB", grown/(1<<20))
	}
	if n := s.stats("connections"); n != float64(fast) {
		t.Errorf("%v are left of %d that read", n, fast)
	}
}
