package supervise

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable is the file of the wards: the one that this process runs, even if another file has its name by now. Workers
// of two versions might not understand each other.
func executable() (string, error) {
	const self = "/proc/self/exe"
	if f, err := os.Open(self); err == nil {
		f.Close()
		return self, nil
	}
	return os.Executable()
}

// wardAttributes give the ward a process group, so that a terminal's signals reach the supervisor alone, and make the
// kernel send it SIGTERM when the supervisor ends. The kernel watches the thread that started the ward, so Run keeps its
// thread. SIGTERM, not SIGKILL, lets the ward send its clients away first.
func wardAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// continueOrphan makes the kernel send this process SIGCONT when the supervisor ends: a stopped process could neither
// drain nor end. Each thread may ask for one signal; a thread of its own asks for this one.
func continueOrphan() {
	go func() {
		runtime.LockOSThread()
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGCONT), 0, 0, 0)
		select {}
	}()
}

// nameThread restores the process's name, which is "exe" after a start from /proc/self/exe.
func nameThread() {
	os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
}

// monotonicMicroseconds is the time that systemd expects with RELOADING=1.
func monotonicMicroseconds() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano() / 1000
}
