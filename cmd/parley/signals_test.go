package main

import (
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// Two signals at once are one: the client is sent away in order. A signal a second later ends the server at once, also
// while the server waits for a client that does not answer its close frame.
func TestSignalsTwice(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			t.Parallel()
			_, admin := freeAddress(t)
			r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--loops", "1", "--processes", fmt.Sprint(processes),
				"--shutdown-timeout", "5m")
			r.hears(stdout)
			conn, in, _, err := ws.Dial(t.Context(), "ws://"+r.ws+"/")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patient))
			r.signal(syscall.SIGTERM)
			r.signal(syscall.SIGTERM)
			r.signal(syscall.SIGINT)
			var source io.ReadWriter = conn
			if in != nil { // it came with the answer to the handshake
				source = struct {
					io.Reader
					io.Writer
				}{in, io.Discard}
			}
			var read error
			for read == nil {
				_, _, read = wsutil.ReadServerData(source)
			}
			if closed, ok := read.(wsutil.ClosedError); !ok || closed.Code != ws.StatusGoingAway {
				t.Fatalf("the client is not sent away, it reads: %v", read)
			}
			again := time.NewTicker(20 * time.Millisecond)
			defer again.Stop()
			for {
				select {
				case <-again.C:
					r.cmd.Process.Signal(syscall.SIGTERM)
					continue
				case <-r.ended:
				}
				break
			}
			if r.cmd.ProcessState.Success() {
				t.Error("the second signal was not heard")
			}
		})
	}
}
