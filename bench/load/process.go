//go:build linux

package load

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// residentBytes is a process's resident memory, with its children's.
func residentBytes(pid int) (total float64) {
	for _, p := range family(pid) {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
		if f := strings.Fields(string(text)); len(f) > 1 {
			pages, _ := strconv.ParseFloat(f[1], 64)
			total += pages * float64(os.Getpagesize())
		}
	}
	return total
}

// cpuSeconds is the CPU time of a process and its children, from the kernel's schedstat.
func cpuSeconds(pid int) (total float64) {
	for _, p := range family(pid) {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", p))
		for _, task := range tasks {
			text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", p, task.Name()))
			if f := strings.Fields(string(text)); len(f) > 0 {
				ns, _ := strconv.ParseFloat(f[0], 64)
				total += ns / 1e9
			}
		}
	}
	return total
}

// family is a process with all its descendants. Each thread has a list of the children that it started.
func family(pid int) []int {
	list := []int{pid}
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, task.Name()))
		for _, f := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(f); err == nil {
				list = append(list, family(child)...)
			}
		}
	}
	return list
}

// ResidentBytes is a process's resident memory, with its children's.
func ResidentBytes(pid int) float64 { return residentBytes(pid) }

// CPUSeconds is the processor time that a process has used, with its children's.
func CPUSeconds(pid int) float64 { return cpuSeconds(pid) }

// MachineSeconds is the processor time in which the machine was not idle, over all cores, the time stolen by its host
// included.
func MachineSeconds() (total float64) {
	text, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		if i >= 1 && i <= 8 && i != 4 && i != 5 { // not idle, not waiting for a disk; guests are in user
			ticks, _ := strconv.ParseFloat(f, 64)
			total += ticks / 100
		}
	}
	return total
}
