//go:build unix

package cluster

import (
	"os"
	"syscall"
)

// lockFile takes a file or directory, or says that another process has it. The kernel lets go of it when that one ends.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
