//go:build unix

package cluster

import (
	"os"
	"syscall"
)

// ours reports whether a directory belongs to this user, and is no link to another.
func ours(dir string) bool {
	at, err := os.Lstat(dir)
	if err != nil || !at.IsDir() {
		return false
	}
	stat, ok := at.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// lockFile takes a file or directory, or says that another process has it. The kernel lets go of it when that one ends.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
