package supervise

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable is what wards are started from: the very file that this process runs, even where another has
// taken its name since. Workers of two versions would not understand each other.
func executable() (string, error) {
	const self = "/proc/self/exe"
	if f, err := os.Open(self); err == nil {
		f.Close()
		return self, nil
	}
	return os.Executable()
}

// wardAttributes make a group of the ward, so that a terminal's signals reach the supervisor alone, and have the kernel
// end it with the supervisor. The kernel takes the end of the thread that started it for the supervisor's: Run
// keeps its thread. SIGTERM, not SIGKILL: who is connected is sent away first, in a bounded time.
func wardAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// continueOrphan has the kernel wake this process, should it be stopped, when the supervisor ends: it could not
// drain otherwise, nor end. Each thread may ask for a signal of its own; this one does nothing else.
func continueOrphan() {
	go func() {
		runtime.LockOSThread()
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0)
		select {}
	}()
}

// nameThread gives the process its name back, which starting it from /proc/self/exe has made "exe".
func nameThread() {
	os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
}

// monotonicMicroseconds is the clock that systemd wants to hear of with RELOADING=1.
func monotonicMicroseconds() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano() / 1000
}
