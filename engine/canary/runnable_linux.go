package canary

import (
	"bytes"
	"os"
	"strconv"
)

// runnable is how many threads run or want to, on the whole machine; 1 where the kernel does not say.
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
