package cluster

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// logged is a log that a test reads while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A server waits for an earlier one that shuts down, logs that, and goes on as soon as it has ended.
func TestSuccessorWaits(t *testing.T) {
	dir := t.TempDir()
	predecessor, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := lockFile(predecessor); err != nil {
		t.Fatal(err)
	}
	out := new(logged)
	log := slog.New(slog.NewTextHandler(out, nil))
	var wrong *engine.ConfigError
	if _, err := lock(t.Context(), dir, 0, log); err == nil || errors.As(err, &wrong) || !strings.Contains(err.Error(), dir+" is in use") {
		t.Errorf("who does not wait is told %v: no mistake in the settings", err)
	}
	ended := make(chan error)
	go func() {
		held, err := lock(t.Context(), dir, time.Hour, log)
		held.Close()
		ended <- err
	}()
	for !strings.Contains(out.String(), "waiting for it to leave") {
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	predecessor.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if wait := patience(engine.Config{ShutdownTimeout: 20 * time.Second}); wait <= 25*time.Second {
		t.Errorf("%v is less than a shutdown may last", wait)
	}
}

// A server that is asked to stop while it waits for an earlier one stops, without an error.
func TestLeavesWhileItWaits(t *testing.T) {
	dir := t.TempDir()
	predecessor, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer predecessor.Close()
	if err := lockFile(predecessor); err != nil {
		t.Fatal(err)
	}
	for _, processes := range []int{1, 2} {
		srv, err := engine.New(engine.Config{Port: -1, Loops: 1, Processes: processes, DataDir: dir, ShutdownTimeout: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		out := new(logged)
		ctx, leave := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- Run(ctx, srv, Options{Log: slog.New(slog.NewTextHandler(out, nil)), Reload: func() (Fresh, error) { return Fresh{}, nil }})
		}()
		for !strings.Contains(out.String(), "waiting for it to leave") {
			select {
			case err := <-ended:
				t.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil { // would end this process
			t.Error(err)
		}
		leave()
		if err := <-ended; err != nil {
			t.Errorf("%d processes: %v", processes, err)
		}
	}
}
