package supervise

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Without /proc the error says what the operator can do.
func TestWithoutProc(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can have a root directory without /proc")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "server"), binary, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := &exec.Cmd{Path: "/server", Args: []string{"server"}, Dir: "/", SysProcAttr: &syscall.SysProcAttr{Chroot: root},
		Env: []string{scriptVariable + `={"Workers":1,"Listen":["127.0.0.1:0"]}`}}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("this binary needs libraries")
	}
	if err == nil || !strings.Contains(string(out), "mount /proc") || !strings.Contains(string(out), "processes: 1") {
		t.Errorf("%v: %s", err, out)
	}
}
