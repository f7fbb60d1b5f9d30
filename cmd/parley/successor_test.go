package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// alive reports whether a process runs: one that was not reaped yet does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return os.IsPermission(err)
	}
	return !strings.Contains(string(stat), "\nState:\tZ")
}

// Clients that neither read nor close do not keep workers beside a successor for longer than three seconds, however long
// shutdown_timeout is.
func TestSuccessor(t *testing.T) {
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip(err)
	}
	_, port := freeAddress(t)
	_, admin := freeAddress(t)
	args := []string{"serve", "--port", port, "--admin-port", admin, "--loops", "1", "--processes", "2", "--shutdown-timeout", "1h"}
	r, stdout, _ := piped(t, nil, args...)
	r.hears(stdout)
	for range 8 {
		conn, _, _, err := ws.Dial(t.Context(), "ws://"+r.ws+"/")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // it reads nothing until then
	}
	workers := r.readyWorkers()
	r.signal(syscall.SIGKILL)
	r.code()
	next := command(t, outputs{}, os.Args[0], args...)
	next.ws, next.admin = r.ws, r.admin
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for serves := false; !serves; <-tick.C { // the port is free a quarter of a second later
		select {
		case <-next.ended:
			next = command(t, outputs{}, os.Args[0], args...)
			next.ws, next.admin = r.ws, r.admin
		default:
			serves = next.healthy() && len(next.readyWorkers()) == 2
		}
	}
	next.eventually("the workers of before are gone", func() bool { return !alive(workers[0]) && !alive(workers[1]) })
	next.stops()
}
