//go:build !linux

package supervise

import (
	"os"
	"syscall"
)

// executable is the file of the wards.
func executable() (string, error) { return os.Executable() }

// wardAttributes give the ward a process group, so that a terminal's signals reach the supervisor alone.
func wardAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func continueOrphan() {}

func nameThread() {}

func monotonicMicroseconds() int64 { return 0 }
