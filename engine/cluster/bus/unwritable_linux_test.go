package bus

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// as runs f as another user, on a thread that goes with it.
func as(user int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and is not unlocked: the thread ends
		_, _ = unix.SetfsuidRetUid(user)
		f()
	}()
	<-done
}

// The error names a file that may be read but not written, at any depth; there is no error if all may be written.
func TestUnwritable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const nobody = 65534
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"jetstream/streams/KV/msgs", "empty"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "jetstream/streams/KV/msgs/1.blk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "empty", "jetstream", "jetstream/streams", "jetstream/streams/KV", "jetstream/streams/KV/msgs", "jetstream/streams/KV/msgs/1.blk"} {
		if err := os.Chown(filepath.Join(dir, path), nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	unwritable := func() (err error) {
		as(nobody, func() { err = Unwritable(dir) })
		return err
	}
	if err := unwritable(); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{file: 0o400, filepath.Dir(file): 0o500, dir: 0o555, filepath.Join(dir, "empty"): 0o000} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := unwritable(); err == nil || !strings.Contains(err.Error(), path+": permission denied") {
			t.Errorf("%s with mode %o: %v", path, mode, err)
		}
		s := &Server{opts: ServerOptions{Dir: dir}}
		as(nobody, func() {
			if s.writable() {
				t.Errorf("%s with mode %o is called writable", path, mode)
			}
		})
		if err := os.Chmod(path, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(file, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := unwritable(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file of another user: %v", err)
	}
}
