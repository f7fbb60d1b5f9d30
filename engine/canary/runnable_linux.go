package canary

import (
	"bytes"
	"os"
	"strconv"
)

// runnable is how many threads of the whole machine run or want to run; 1 if the kernel does not tell.
func runnable() int {
	text, err := os.ReadFile("/proc/loadavg") // "0.00 0.01 0.05 2/290 31140": two of 290
	if err != nil {
		return 1
	}
	return running(text)
}

func running(loadavg []byte) int {
	fields := bytes.Fields(loadavg)
	if len(fields) < 4 {
		return 1
	}
	running, _, _ := bytes.Cut(fields[3], []byte("/"))
	n, err := strconv.Atoi(string(running))
	if err != nil {
		return 1
	}
	return max(n, 1)
}
