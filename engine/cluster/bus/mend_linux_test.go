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

// After a time of a full disk only the writes of that time are lost. Here a limit keeps files from growing: the kernel
// refuses such writes like those to a full disk.
//
// It runs in a process of its own: the limit holds for the test binary's own log too.
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
