//go:build !linux

package supervise

import (
	"os"
	"syscall"
)

// executable is what wards are started from.
func executable() (string, error) { return os.Executable() }

// wardAttributes make a group of the ward, so that a terminal's signals reach the supervisor alone.
func wardAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func continueOrphan() {}

func nameThread() {}

func monotonicMicroseconds() int64 { return 0 }
