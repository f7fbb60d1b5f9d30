package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/parleyd/parley/engine"
)

// configured writes a configuration that admits one origin.
func configured(t *testing.T, path, origin string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("origins: ["+origin+"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func serveArgs(t *testing.T, processes int, config string) []string {
	_, admin := freeAddress(t)
	return []string{"serve", "--port", "0", "--admin-port", admin, "--loops", "1", "--processes", fmt.Sprint(processes), "--config", config}
}

// A server whose standard output and log have lost their readers goes on: it serves, reloads its settings, and stops on
// SIGTERM.
func TestBrokenOutput(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			t.Parallel()
			config := filepath.Join(t.TempDir(), "parley.yaml")
			configured(t, config, "https://one.example")
			reader, stderr, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			r, stdout, closer := piped(t, stderr, serveArgs(t, processes, config)...)
			stderr.Close()
			r.hears(stdout)
			closer.Close()
			reader.Close()
			// The second reload comes after the line that is logged about the first.
			for _, origin := range []string{"https://two.example", "https://three.example", "https://four.example"} {
				configured(t, config, origin)
				r.signal(syscall.SIGHUP)
				r.eventually("the settings are in force", func() bool { return r.admits(origin) && !r.admits("https://one.example") })
			}
			r.stops()
		})
	}
}

// A server without standard descriptors does not take a socket for its log.
func TestClosedDescriptors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("looks into /proc")
	}
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			t.Parallel()
			admin, port := freeAddress(t)
			r := command(t, outputs{}, "/bin/sh", "-c", `exec "$0" "$@" <&- >&- 2>&-`, os.Args[0], "serve", "--port", "0", "--admin-port", port,
				"--loops", "1", "--processes", fmt.Sprint(processes))
			r.admin = admin
			r.eventually("it serves", r.healthy)
			for fd := range 3 {
				if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", r.cmd.Process.Pid, fd)); to != os.DevNull {
					t.Errorf("descriptor %d is %q (%v)", fd, to, err)
				}
			}
			r.stops()
		})
	}
}

// A server whose log is on a full disk goes on.
func TestFullLog(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			admin, port := freeAddress(t)
			r := command(t, outputs{full, full}, os.Args[0], "serve", "--port", "0", "--admin-port", port, "--loops", "1",
				"--processes", fmt.Sprint(processes))
			r.admin = admin
			r.eventually("it serves", r.healthy)
			r.stops()
		})
	}
}

// The checker's exit code tells its findings, also if its progress has no reader.
func TestVerifyWithBrokenOutput(t *testing.T) {
	s, err := engine.New(engine.Config{Port: -1, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(t.Context()) })
	reader, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r, _, stdout := piped(t, stderr, "verify", "ws://"+s.Addr().String(), "--for", "1200ms", "--clients", "4", "--patience", "20s")
	stderr.Close()
	stdout.Close()
	reader.Close()
	if code := r.code(); code != exitOK {
		t.Errorf("ends with %d: %v", code, r.cmd.ProcessState)
	}
}

// A tool whose reader has stopped reading ends by SIGPIPE, as tools do.
func TestToolsEndWithTheirReader(t *testing.T) {
	for _, verb := range []string{"version", "openapi"} {
		reader, stdout, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
		r := command(t, outputs{stdout, nil}, os.Args[0], verb)
		stdout.Close()
		r.code()
		if status, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGPIPE {
			t.Errorf("%s ends with %v", verb, r.cmd.ProcessState)
		}
	}
}
