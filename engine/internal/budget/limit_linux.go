package budget

import (
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Usable is the memory that all processes of the server may use: the limit of the control group or the machine's memory; 0
// where it is not known.
func Usable() int64 {
	var info unix.Sysinfo_t
	most := int64(0)
	if unix.Sysinfo(&info) == nil {
		most = int64(info.Totalram) * int64(info.Unit)
	}
	for _, path := range groupLimits() {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 && (most == 0 || n < most) {
			most = n
		}
	}
	return most
}

// groupLimits are the files with limits of the control groups that the process is in.
func groupLimits() (paths []string) {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		root, file := "/sys/fs/cgroup", "memory.max"
		if fields[1] == "memory" {
			root, file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
		} else if fields[1] != "" {
			continue
		}
		for dir := fields[2]; ; dir = dir[:strings.LastIndexByte(dir, '/')] {
			paths = append(paths, root+strings.TrimSuffix(dir, "/")+"/"+file)
			if strings.TrimSuffix(dir, "/") == "" {
				break
			}
		}
	}
	return paths
}
