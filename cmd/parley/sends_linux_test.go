package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withoutRing makes the process one to which the kernel refuses io_uring, and its children too, as a container's filter does.
const withoutRing = "TEST_WITHOUT_IO_URING"

func init() {
	if os.Getenv(withoutRing) == "" {
		return
	}
	const ioUringSetup, allThreads = 425, 1
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: ioUringSetup},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, allThreads, uintptr(unsafe.Pointer(&program))); errno != 0 {
		panic(errno)
	}
}

// Where the kernel refuses io_uring, the server says so once a process, counts no ring, and serves; it does not start if it must have one.
// A member gets what is published in either case.
func TestSends(t *testing.T) {
	refusal := regexp.MustCompile(`level=INFO msg="the kernel refuses io_uring, so each write is a system call of its own, as with the setting sends: plain" err="io_uring_setup: operation not permitted"`)
	for _, row := range []struct {
		sends     string
		refused   bool
		processes int
		rings     string // "" if it does not start
		lines     int
	}{
		{"auto", false, 1, "2", 0}, {"ring", false, 1, "2", 0}, {"plain", false, 1, "0", 0}, {"auto", false, 2, "4", 0},
		{"auto", true, 1, "0", 1}, {"plain", true, 1, "0", 0}, {"ring", true, 1, "", 0}, {"auto", true, 2, "0", 2}, {"ring", true, 2, "", 0},
	} {
		t.Run(fmt.Sprintf("%s %v %d", row.sends, row.refused, row.processes), func(t *testing.T) {
			if row.refused {
				t.Setenv(withoutRing, "1")
			} else if row.sends != "plain" && !permitted() {
				t.Skip("this machine refuses io_uring")
			}
			log, err := os.Create(filepath.Join(t.TempDir(), "log"))
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			said := func() string { text, _ := os.ReadFile(log.Name()); return string(text) }
			_, admin := freeAddress(t)
			r, stdout, _ := piped(t, log, "serve", "--port", "0", "--admin-port", admin, "--loops", "2", "--processes", fmt.Sprint(row.processes), "--sends", row.sends)
			if row.rings == "" {
				if code := r.code(); code != exitFailed {
					t.Errorf("it ends with %d", code)
				}
				if text := said(); !strings.Contains(text, "the setting sends is ring, and the kernel refuses one (io_uring_setup: operation not permitted): allow the system calls io_uring_setup and io_uring_enter, or set it to auto") {
					t.Errorf("it says\n%s", text)
				}
				return
			}
			r.hears(stdout)
			r.eventually("the figure is "+row.rings, func() bool {
				_, body := r.page("/metrics")
				return strings.Contains(body, "\nparley_send_rings "+row.rings+"\n")
			})
			if n := len(refusal.FindAllString(said(), -1)); n != row.lines {
				t.Errorf("%d lines of the refusal, want %d:\n%s", n, row.lines, said())
			}
			r.stops()
		})
	}
}

// permitted reports whether the kernel gives this process a ring.
func permitted() bool {
	var params [120]byte
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno == 0 {
		unix.Close(int(fd))
	}
	return errno == 0
}
