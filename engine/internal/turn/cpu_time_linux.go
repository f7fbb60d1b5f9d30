package turn

import (
	"bytes"
	"strconv"

	"golang.org/x/sys/unix"
)

// readCPU reads the figures of the calling thread: three system calls. The result is zero if the kernel has no figures or
// the process has no free descriptor.
func readCPU() cpuTime {
	fd, err := unix.Open("/proc/thread-self/schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return cpuTime{}
	}
	defer unix.Close(fd)
	var text [96]byte
	n, err := unix.Read(fd, text[:])
	if err != nil {
		return cpuTime{}
	}
	fields := bytes.Fields(text[:n])
	if len(fields) < 2 {
		return cpuTime{}
	}
	ran, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	waited, _ := strconv.ParseInt(string(fields[1]), 10, 64)
	return cpuTime{thread: unix.Gettid(), ran: ran, waited: waited}
}
