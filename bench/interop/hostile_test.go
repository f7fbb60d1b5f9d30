package interop

import (
	"bytes"
	"crypto/tls"
	"io"
	"math/rand"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// upgrade is a valid opening handshake.
const upgrade = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// hello is the beginning of a TLS connection.
func hello() []byte {
	ours, theirs := net.Pipe()
	defer ours.Close()
	go tls.Client(theirs, &tls.Config{ServerName: "x"}).Handshake()
	buf := make([]byte, 4096)
	n, _ := ours.Read(buf)
	return buf[:n]
}

// The server answers or cuts off any input on its port, in time, and other clients do not notice.
func TestHostile(t *testing.T) {
	s := serve(t, "--handshake-timeout", "1", "--heartbeat-interval", "1", "--heartbeat-timeout", "2")
	watcher := greet(t, "gorilla", s.ws)
	descriptors := s.metric("process_open_fds")
	random := rand.New(rand.NewSource(1))
	noise := make([]byte, 64<<10)
	random.Read(noise)
	answers := map[string]struct {
		sent []byte
		want string // the answer's beginning; "" where there need be none
	}{
		"random bytes":         {noise[:4<<10], "HTTP/1.1 400 "},
		"a TLS hello":          {hello(), "HTTP/1.1 400 "},
		"100 KB of header":     {[]byte("GET / HTTP/1.1\r\nX: " + strings.Repeat("x", 100<<10)), "HTTP/1.1 431 "},
		"10,000 headers":       {[]byte("GET / HTTP/1.1\r\n" + strings.Repeat("X: y\r\n", 10_000)), "HTTP/1.1 431 "},
		"no upgrade":           {[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "HTTP/1.1 426 "},
		"another method":       {[]byte("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"), "HTTP/1.1 405 "},
		"half a request":       {[]byte("GET / HTTP/1.1\r\nHost:"), "HTTP/1.1 408 "},
		"nothing at all":       {nil, "HTTP/1.1 408 "},
		"noise after upgrade":  {append([]byte(upgrade), noise...), "HTTP/1.1 101 "},
		"a frame of 2^63":      {append([]byte(upgrade), 0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0), "HTTP/1.1 101 "},
		"a declared gigabyte":  {append([]byte(upgrade), 0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4), "HTTP/1.1 101 "},
		"endless fragments":    {append([]byte(upgrade), bytes.Repeat([]byte{0x00, 0x80, 0, 0, 0, 0}, 50_000)...), "HTTP/1.1 101 "},
		"a flood of pings":     {append([]byte(upgrade), bytes.Repeat([]byte{0x89, 0x80, 0, 0, 0, 0}, 200_000)...), "HTTP/1.1 101 "},
		"silence once greeted": {[]byte(upgrade), "HTTP/1.1 101 "},
	}
	var all sync.WaitGroup
	for name, row := range answers {
		for range 5 {
			all.Add(1)
			go func() {
				defer all.Done()
				if got := provoke(t, s, row.sent); !strings.HasPrefix(got, row.want) {
					t.Errorf("%s is answered %.60q, want %q", name, got, row.want)
				}
			}()
		}
	}
	over := make(chan bool)
	go func() {
		all.Wait()
		close(over)
	}()
	for waiting := true; waiting; {
		watcher.say(`{"type":"ping"}`)
		watcher.until("pong")
		select {
		case <-over:
			waiting = false
		case <-time.After(50 * time.Millisecond):
		}
	}
	eventually(t, "the descriptors are back", func() bool { return s.metric("process_open_fds") <= descriptors+4 })
	if response, err := http.Get(s.admin + "healthz"); err != nil || response.StatusCode != http.StatusOK {
		t.Error(response, err)
	}
}

// provoke sends bytes as fast as it can, and returns the server's output up to the end of the connection, which the server
// must bring about.
func provoke(t *testing.T, s *server, sent []byte) string {
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.ws, "ws://"))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	go conn.Write(sent)
	conn.SetReadDeadline(time.Now().Add(patient))
	var got bytes.Buffer
	if _, err := io.Copy(&got, conn); os.IsTimeout(err) {
		t.Errorf("after %v the server still holds the connection that sent %.30q", patient, sent)
	}
	return got.String()
}

// At SIGTERM the server accepts no new clients, closes all connections with 1001, and ends with 0, in time, although some
// clients do not even read.
func TestTermination(t *testing.T) {
	s := serve(t, "--shutdown-timeout", "3")
	var readers []*gorilla.Conn
	for range 50 {
		readers = append(readers, s.join(gorilla.DefaultDialer))
		s.join(gorilla.DefaultDialer) // does not read
	}
	eventually(t, "all are in", func() bool { return s.stats("connections") == 100 })
	begun := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, conn := range readers {
		conn.SetReadDeadline(time.Now().Add(patient))
		for {
			_, _, err := conn.ReadMessage()
			if err == nil {
				continue
			}
			if !gorilla.IsCloseError(err, gorilla.CloseGoingAway) {
				t.Error("a client is told:", err)
			}
			break
		}
	}
	if err := s.cmd.Wait(); err != nil {
		t.Error("the server ends with", err)
	}
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %v, 3 s are allowed, and some more on a slow machine", took)
	}
	if conn, _, err := gorilla.DefaultDialer.Dial(s.ws, nil); err == nil {
		conn.Close()
		t.Error("a newcomer was let in")
	}
}
