//go:build unix

package cluster

import (
	"os"
	"syscall"
)

// ours reports whether dir is a directory of this user, and not a symbolic link.
func ours(dir string) bool {
	at, err := os.Lstat(dir)
	if err != nil || !at.IsDir() {
		return false
	}
	stat, ok := at.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid()
}

// lockFile locks a file or directory, and fails if another process holds the lock. The kernel frees it when the holder
// ends.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
