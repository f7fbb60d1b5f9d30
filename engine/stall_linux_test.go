package engine

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// A process that was stopped for longer than heartbeat_timeout ends none of its clients, who answered all the time.
func TestStoppedProcess(t *testing.T) {
	const timeout = 2 * time.Second
	if os.Getenv("TRAP") == t.Name() {
		s := startServer(t, func(c *Config) { c.HeartbeatInterval, c.HeartbeatTimeout = timeout/4, timeout }, nil)
		fmt.Println("listens on", s.Addr())
		bufio.NewReader(os.Stdin).ReadByte() // until the parent has done
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "TRAP="+t.Name())
	in, _ := cmd.StdinPipe()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := "ws://" + strings.TrimSpace(strings.TrimPrefix(line, "listens on ")) + "/"
	var clients []*client
	for range 20 {
		c := dialURL(t, url, ws.Dialer{})
		c.expect("connected")
		c.expect("reconnect_token")
		clients = append(clients, c)
	}
	cmd.Process.Signal(syscall.SIGSTOP)
	for begun := time.Now(); time.Since(begun) < timeout+timeout/4; {
		for _, c := range clients {
			c.send(`{"type":"pong"}`)
		}
		<-time.After(timeout / 10)
	}
	cmd.Process.Signal(syscall.SIGCONT)
	for i, c := range clients {
		c.send(fmt.Sprintf(`{"type":"ping","ref":%d}`, i))
	}
	for i, c := range clients {
		for m := c.next(); m["type"] != "pong"; m = c.next() {
			if m["type"] != "ping" {
				t.Fatalf("client %d reads %v", i, m)
			}
		}
	}
}
