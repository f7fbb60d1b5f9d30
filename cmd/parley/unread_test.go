package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// unread is a full pipe without a reader.
func unread(t *testing.T) *os.File {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	writer.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for size := 64 << 10; size > 0; {
		_, err := writer.Write(make([]byte, size))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			writer.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
			size /= 8
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return writer
}

// readyWorkers are the process ids of the workers that serve.
func (r *running) readyWorkers() (pids []int) {
	answer, err := http.Get("http://" + r.admin + "/stats")
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	var stats struct {
		Workers []struct {
			PID   int
			State string
		}
	}
	json.NewDecoder(answer.Body).Decode(&stats)
	for _, w := range stats.Workers {
		if w.State == "ready" {
			pids = append(pids, w.PID)
		}
	}
	return pids
}

// A log and a standard output that are not read hold the server up in no way: it serves clients, reloads settings,
// replaces a killed worker, and obeys SIGTERM.
func TestUnreadOutput(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			t.Parallel()
			config := filepath.Join(t.TempDir(), "parley.yaml")
			configured(t, config, "https://one.example")
			ws, port := freeAddress(t)
			admin, adminPort := freeAddress(t)
			r := command(t, outputs{unread(t), unread(t)}, os.Args[0], "serve", "--port", port, "--admin-port", adminPort,
				"--loops", "1", "--processes", fmt.Sprint(processes), "--config", config)
			r.ws, r.admin = ws, admin
			r.eventually("it serves", func() bool { return r.healthy() && r.admits("https://one.example") })
			configured(t, config, "https://two.example")
			r.signal(syscall.SIGHUP)
			r.eventually("the settings are in force", func() bool { return r.admits("https://two.example") && !r.admits("https://one.example") })
			if processes > 1 {
				before := r.readyWorkers()
				syscall.Kill(before[0], syscall.SIGKILL)
				r.eventually("the worker is replaced", func() bool {
					now := r.readyWorkers()
					return len(now) == processes && now[0] != before[0]
				})
			}
			r.stops()
		})
	}
}

// A server that cannot start ends, even if its output is not read.
func TestUnreadFailure(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	for _, processes := range []string{"1", "2"} {
		r := command(t, outputs{unread(t), unread(t)}, os.Args[0], "serve", "--port", taken, "--admin-port", "0", "--processes", processes)
		if code := r.code(); code != exitFailed {
			t.Errorf("processes %s: ends with %d", processes, code)
		}
	}
}
