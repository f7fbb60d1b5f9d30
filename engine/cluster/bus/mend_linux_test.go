package bus

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"
)

// A disk that was full for a while costs what could not be written meanwhile, and nothing else. Files may not grow here,
// for the kernel says no to that as to a disk without room.
//
// It runs in a process of its own: of the files that may not grow one is the test binary's own log.
func TestFullDisk(t *testing.T) {
	if os.Getenv("FULL_DISK") == "" {
		own := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.count=1")
		own.Env = append(os.Environ(), "FULL_DISK=1")
		if out, err := own.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	noLeaks(t)
	s, err := Start(ServerOptions{Dir: t.TempDir(), Secret: secret, Local: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	nc, err := s.Connect(9)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	kv := sessions(t, nc)
	if _, err := kv.PutString(t.Context(), "9.before", "x"); err != nil {
		t.Fatal(err)
	}

	signal.Ignore(syscall.SIGXFSZ)
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	full := unix.Rlimit{Cur: 1, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &full); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			restored = true
			_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &was)
		}
	}
	defer restore()
	answer, err := nc.Request("$KV.sessions.9.lost", []byte("x"), nats.DefaultTimeout/4)
	if err == nil {
		t.Fatalf("a full disk takes a record: %s", answer.Data)
	}
	if got, err := kv.Get(t.Context(), "9.before"); err != nil || string(got.Value()) != "x" {
		t.Errorf("what was stored cannot be read meanwhile: %v", err)
	}
	restore()
	eventually(t, "records are taken again", func() bool {
		_, err := kv.PutString(t.Context(), "9.after", "y")
		return err == nil
	})
	for _, key := range []string{"9.before", "9.after"} {
		if _, err := kv.Get(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
